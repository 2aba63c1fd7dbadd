(() => {
  const data = JSON.parse($("data").textContent);
  const items = new Map(data.items.map((item) => [item.id, item]));
  const measures = [["consistency", "Consistency"], ["fluency", "Fluency"]];
  const letter = (index) => String.fromCharCode(65 + index);
  const store = (number) => `human-evaluation-${data.questionnaire}-${number}`;
  const last = `human-evaluation-${data.questionnaire}`;

  let state = null; // {participant, at, rankings: {id: {consistency: [rank or null], fluency: […]}}}
  const warn = (event) => event.preventDefault(); // Asks before the page is left, for a browser that stores no answers.

  const remember = (key, value) => { try { localStorage.setItem(key, value); } catch { /* A private window stores nothing; answers can still be saved to a file. */ } };
  const recall = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const say = (text) => { $("status").textContent = text; };
  const asked = () => data.plan[(state.participant - 1) % data.plan.length];
  const empty = (id) => Object.fromEntries(measures.map(([name]) => [name, items.get(id).texts.map(() => null)]));
  const ranksOf = (id) => state.rankings[id] ?? (state.rankings[id] = empty(id));
  const answered = (id) => measures.every(([name]) => ranksOf(id)[name].every((rank) => rank !== null));
  const keep = () => { remember(store(state.participant), JSON.stringify(state)); remember(last, state.participant); };

  function begin(participant, saved) {
    state = { participant, at: 0, rankings: {} };
    for (const id of asked()) {
      const ranks = saved?.rankings?.[id];
      if (ranks && fits(ranks, id)) state.rankings[id] = ranks;
    }
    const open = asked().findIndex((id) => !answered(id));
    state.at = open < 0 ? asked().length - 1 : open;
    $("start").hidden = true;
    $("work").hidden = false;
    $("instructions").open = false;
    keep();
    show();
    say("");
  }

  function fits(ranks, id) {
    const size = items.get(id).texts.length;
    return measures.every(([name]) => {
      const given = ranks[name];
      if (!Array.isArray(given) || given.length !== size) return false;
      const set = given.filter((rank) => rank !== null);
      return set.every((rank) => Number.isInteger(rank) && rank >= 1 && rank <= size) && new Set(set).size === set.length;
    });
  }

  function show() {
    const id = asked()[state.at];
    const item = items.get(id);
    const parts = [
      make("h2", {}, `Statement ${state.at + 1} of ${asked().length}: take it as true`),
      make("p", { class: "statement" }, item.statement),
    ];
    item.texts.forEach((text, index) => {
      const ranks = make("div", { class: "ranks" });
      for (const [name, title] of measures) ranks.append(choices(id, index, name, title));
      parts.push(make("article", {}, make("h3", {}, `Text ${letter(index)}`), make("p", {}, text), ranks));
    });
    $("case").replaceChildren(...parts);
    $("case").focus({ preventScroll: true });
    $("work").scrollIntoView();
    count();
  }

  function choices(id, index, name, title) {
    const size = items.get(id).texts.length;
    const set = make("fieldset", {}, make("legend", {}, title));
    set.setAttribute("aria-label", `${title} of text ${letter(index)}, 1 is the best of ${size}`);
    for (let rank = 1; rank <= size; rank += 1) {
      const radio = make("input", { type: "radio", name: `${name}-${index}`, value: rank, "aria-label": `rank ${rank}` });
      radio.checked = ranksOf(id)[name][index] === rank;
      radio.addEventListener("change", () => choose(id, index, name, rank));
      set.append(make("label", { class: "rank" }, radio, make("span", { "aria-hidden": "true" }, String(rank))));
    }
    return set;
  }

  // Each rank is given only once: if another text has this rank, it gets the previous rank of the chosen text. If only
  // one text has no rank yet, it gets the rank that is left.
  function choose(id, index, name, rank) {
    const ranks = ranksOf(id)[name];
    const other = ranks.indexOf(rank);
    const free = ranks[index];
    ranks[index] = rank;
    if (other >= 0 && other !== index) ranks[other] = free;
    const open = ranks.flatMap((value, place) => (value === null ? [place] : []));
    if (open.length === 1) {
      const left = ranks.map((_, place) => place + 1).find((value) => !ranks.includes(value));
      ranks[open[0]] = left;
    }
    ranks.forEach((value, place) => {
      for (const radio of document.getElementsByName(`${name}-${place}`)) radio.checked = Number(radio.value) === value;
    });
    keep();
    if (recall(store(state.participant)) === null) addEventListener("beforeunload", warn);
    count();
    say("");
    $("ranks").textContent = `${name}: ${ranks.map((value, place) => `text ${letter(place)} ${value ?? "open"}`).join(", ")}`;
  }

  function count() {
    const done = asked().filter(answered).length;
    $("progress").max = asked().length;
    $("progress").value = done;
    $("count").textContent = `${done} of ${asked().length} answered`;
    $("previous").disabled = state.at === 0;
    $("next").disabled = state.at === asked().length - 1;
  }

  function step(by) {
    state.at += by;
    keep();
    say("");
    show();
  }

  function save() {
    const rankings = Object.fromEntries(asked().filter((id) => ranksOf(id) && touched(id)).map((id) => [id, ranksOf(id)]));
    const answers = { questionnaire: data.questionnaire, participant: state.participant, saved: new Date().toISOString(), rankings };
    const file = `answers-${data.questionnaire}-${state.participant}.json`;
    const url = URL.createObjectURL(new Blob([JSON.stringify(answers, null, 1) + "\n"], { type: "application/json" }));
    const link = make("a", { href: url, download: file });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    removeEventListener("beforeunload", warn);
    const open = asked().filter((id) => !answered(id)).length;
    say(open ? `Saved as ${file}; ${open} of ${asked().length} are still open. Load this file to go on.`
      : `Saved as ${file}. All are answered: please send this file back. Thank you!`);
  }

  const touched = (id) => measures.some(([name]) => ranksOf(id)[name].some((rank) => rank !== null));

  async function load(file) {
    let saved;
    try { saved = JSON.parse(await file.text()); } catch { return say(`${file.name} is not a file of answers.`); }
    if (saved?.questionnaire !== data.questionnaire) return say(`${file.name} belongs to another questionnaire.`);
    if (!Number.isInteger(saved.participant) || saved.participant < 1) return say(`${file.name} names no participant.`);
    return begin(saved.participant, saved);
  }

  $("start").addEventListener("submit", (event) => {
    event.preventDefault();
    const number = Number($("participant").value);
    let saved = null;
    try { saved = JSON.parse(recall(store(number)) ?? "null"); } catch { /* Stored answers that cannot be read are ignored. */ }
    begin(number, saved);
  });
  $("file").addEventListener("change", (event) => { if (event.target.files.length) load(event.target.files[0]); });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("save").addEventListener("click", save);
  const number = new URLSearchParams(location.search).get("participant") ?? recall(last);
  if (number) $("participant").value = number;
})();
