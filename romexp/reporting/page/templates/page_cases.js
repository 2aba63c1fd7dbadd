// Shows one case at a time: its prompts, what was measured before and after the edit, and the generated texts.

const data = $("data") ? JSON.parse($("data").textContent) : [];
const KINDS = [
  ["rewrite", "edited prompt", "edited prompts", true],
  ["paraphrase", "paraphrase", "paraphrases", true],
  ["neighborhood", "neighbour", "neighbours", false],
  ["attribute", "attribute prompt", "attribute prompts", true],
];

const studyShown = () => data.find((study) => study.id === state.get("study")) || data[0];
const found = (study, words) => study.cases.filter((each) => {
  const text = `${each.id} ${each.subject} ${each.fact} ${each.target_new} ${each.target_true}`.toLowerCase();
  return words.every((word) => text.includes(word));
});
const addressOf = (study, each) => {
  const params = new URLSearchParams(state);
  params.set("study", study.id);
  params.set("case", each.id);
  params.delete("text");
  return `#${params}`;
};

function mean(values) {
  const numbers = values.filter((value) => value !== null);
  return numbers.length ? numbers.reduce((a, b) => a + b, 0) / numbers.length : null;
}

function probability(value) {
  if (value === null) return "–";
  return value > 0 && value < 0.0005 ? "<0.001" : value.toFixed(3);
}

function bars(pairs, wantsNew) {
  const box = make("div", { class: "probability" });
  ["new", "old"].forEach((name, index) => {
    const value = mean(pairs.map((pair) => pair[index]));
    const bar = make("i");
    bar.style.width = `${100 * (value || 0)}%`;
    box.append(make("span", { class: name }, probability(value)), bar);
  });
  const likelier = { "1": "o* likelier", "0": "neither likelier", "-1": "oᶜ likelier" };
  const wanted = wantsNew ? 1 : -1;
  const right = pairs.filter((pair) => pair[2] === wanted).length;
  box.append(make("em", {}, pairs.length === 1 ? likelier[pairs[0][2]] : `${likelier[wanted]}: ${right} of ${pairs.length}`));
  return box;
}

function rightTokens(flags) {
  if (flags.length === 1) return flags[0] ? "right" : "wrong";
  return `${flags.filter(Boolean).length} of ${flags.length} tokens right`;
}

// A kind of prompt has pairs of probabilities, or flags that say which tokens of its one expected answer were right.
function hasFlags(sides, kind) {
  return sides.some(([, side]) => side && side[kind] && side[kind].length && !Array.isArray(side[kind][0]));
}

function namesOldAnswer(study, each) {
  return study.kind !== "zsre" && Boolean(each.target_true);
}

function sidesOf(study, each) {
  return [["unedited", each.pre], ...study.entries.map((label, index) => [label, each.post[index]])];
}

function scrollBox(label, table) {
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);
}

function measuredTable(study, each) {
  const sides = sidesOf(study, each);
  const kinds = KINDS.filter(([kind]) => sides.some(([, side]) => side && side[kind] && side[kind].length));
  const head = make("tr", {}, make("th", { scope: "col" }, "Model"));
  for (const [kind, one, many] of kinds) {
    const n = counted(sides, kind);
    head.append(make("th", { scope: "col" }, hasFlags(sides, kind) ? one : n === 1 ? one : `${n} ${many}, mean`));
  }
  const body = make("tbody");
  for (const [label, side] of sides) {
    const row = make("tr", {}, make("th", { scope: "row" }, label));
    for (const [kind, , , wantsNew] of kinds) {
      const values = side && side[kind];
      const cell = !side ? "not measured" : !values || !values.length ? "–" : hasFlags(sides, kind) ? rightTokens(values) : bars(values, wantsNew);
      row.append(make("td", {}, cell));
    }
    body.append(row);
  }
  return scrollBox("Measured on this case", make("table", {}, make("thead", {}, head), body));
}

function counted(sides, kind) {
  return Math.max(...sides.map(([, side]) => (side && side[kind] ? side[kind].length : 0)));
}

function pairCell(pair) {
  if (!pair) return make("td", { class: "num" }, "–");
  return make("td", { class: "num" }, make("span", { class: "new" }, probability(pair[0])), " / ", make("span", { class: "old" }, probability(pair[1])));
}

// Rows of one kind of prompt. zsRE has one list of tokens for all prompts of a kind, so one cell spans all rows.
function promptRows(study, each, sides, [kind, one, many]) {
  const accuracy = hasFlags(sides, kind);
  const texts = each.prompts[kind] || [];
  const n = accuracy ? (counted(sides, kind) ? Math.max(texts.length, 1) : 0) : counted(sides, kind);
  const named = texts.length === n;
  const answers = accuracy && each.answers.length === n && kind === "neighborhood" ? each.answers : [];
  const rows = [];
  if (n && named) rows.push(make("tr", { class: "block" }, make("th", { scope: "rowgroup", colspan: sides.length + 1 }, make("span", {}, n === 1 ? one : `${n} ${many}`))));
  for (let i = 0; i < n; i += 1) {
    const answer = answers[i] ? [" → ", make("span", { class: "answer" }, answers[i])] : [];
    const row = make("tr", {}, make("th", { scope: "row", class: "prompt" }, named ? texts[i] : n === 1 ? one : `${one} ${i + 1}`, ...answer));
    for (const [, side] of sides) {
      const values = side && side[kind];
      if (!accuracy) row.append(pairCell(values && values[i]));
      else if (i === 0) row.append(make("td", { class: "num", rowspan: n }, values && values.length ? rightTokens(values) : "–"));
    }
    rows.push(row);
  }
  return rows;
}

let promptsOpen = false; // is kept when another case is shown

function promptTable(study, each) {
  const sides = sidesOf(study, each);
  const head = make("tr", {}, make("th", { scope: "col" }, "Prompt"), ...sides.map(([label]) => make("th", { scope: "col", class: "num" }, label)));
  const body = make("tbody", {}, ...KINDS.flatMap((kind) => promptRows(study, each, sides, kind)));
  const title = study.kind === "zsre" ? "Every prompt" : "Every prompt: P(o*) / P(oᶜ)";
  const box = make("details", {}, make("summary", {}, title), scrollBox("Every prompt", make("table", {}, make("thead", {}, head), body)));
  box.open = promptsOpen;
  box.addEventListener("toggle", () => { promptsOpen = box.open; });
  return box;
}

function sharedBeginning(texts) {
  let end = texts[0].length;
  for (const text of texts) {
    let i = 0;
    while (i < end && text[i] === texts[0][i]) i += 1;
    end = i;
  }
  if (texts.every((text) => text.length === end)) return end;
  return Math.max(texts[0].lastIndexOf(" ", end - 1) + 1, 0);
}

function marked(text, each) {
  // Both answers become elements where they occur as whole words; all other text stays text.
  const names = new Map([[each.target_true.trim(), "old"], [each.target_new.trim(), "new"]]);
  const targets = [...names.keys()].filter(Boolean).sort((a, b) => b.length - a.length);
  if (!targets.length) return [text];
  const escaped = targets.map((target) => target.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const word = new RegExp(`(?<![\\p{L}\\p{N}])(${escaped.join("|")})(?![\\p{L}\\p{N}])`, "u");
  return text.split(word).map((part, i) => (i % 2 ? make("span", { class: names.get(part) }, part) : part));
}

function button(label, enabled, action, title) {
  const node = make("button", { type: "button", title }, label);
  node.disabled = !enabled;
  node.addEventListener("click", action);
  return node;
}

function generations(study, each) {
  const sides = sidesOf(study, each).filter(([, side]) => side && side.texts && side.texts.length);
  if (!sides.length) return [];
  const n = Math.max(...sides.map(([, side]) => side.texts.length));
  const index = Math.min(Math.max(Number(state.get("text")) || 0, 0), n - 1);
  const texts = sides.filter(([, side]) => side.texts[index]).map(([label, side]) => [label, side.texts[index]]);
  const shared = texts.length > 1 ? sharedBeginning(texts.map(([, text]) => text)) : 0;
  const choose = (step) => { show({ text: String(index + step) }); $(step < 0 ? "text-previous" : "text-next").focus(); };
  const previous = button("←", index > 0, () => choose(-1), "previous prompt");
  const next = button("→", index < n - 1, () => choose(1), "next prompt");
  previous.id = "text-previous";
  next.id = "text-next";
  const grid = make("div", { class: "texts" });
  for (const [label, text] of texts) {
    grid.append(make("div", {}, make("h4", {}, label),
      make("p", {}, make("span", { class: "shared" }, ...marked(text.slice(0, shared), each)), ...marked(text.slice(shared), each))));
  }
  const prompt = each.text_prompts[index] ? [make("p", { class: "asked" }, "“", ...marked(each.text_prompts[index], each), "”")] : [];
  return [make("h3", {}, "Generated texts"),
    make("div", { class: "bar" }, previous, next, make("span", {}, `prompt ${index + 1} of ${n}; what all texts share is grey`)), ...prompt, grid];
}

function renderCase(study, each, listed) {
  const place = listed.indexOf(each);
  const go = (step) => { const to = listed[place + step]; if (to) show({ study: study.id, case: String(to.id), text: "" }); };
  const previous = button("← Previous", place > 0, () => { go(-1); $("case-previous").focus(); });
  const next = button("Next →", place >= 0 && place < listed.length - 1, () => { go(1); $("case-next").focus(); });
  previous.id = "case-previous";
  next.id = "case-next";
  const fact = make("p", { class: "fact" });
  const gap = each.fact.endsWith("?") ? " → " : " ";
  fact.append(each.fact, gap, make("ins", {}, each.target_new));
  if (namesOldAnswer(study, each)) fact.append(" instead of ", make("del", {}, each.target_true));
  $("case").replaceChildren(
    make("div", { class: "bar" }, previous, next, make("span", {}, `case ${each.id}`)),
    make("h3", {}, each.subject), fact,
    ...(!namesOldAnswer(study, each) ? [] : [make("p", { class: "note" }, "Probabilities of the new answer ", make("span", { class: "new" }, "o*"),
      " and of the old one ", make("span", { class: "old" }, "oᶜ"), ", geometric means over their tokens.")]),
    measuredTable(study, each), promptTable(study, each), ...generations(study, each));
}

function renderBrowser() {
  if (!data.length) return;
  const study = studyShown();
  const words = (state.get("find") || "").toLowerCase().split(/\s+/).filter(Boolean);
  const listed = found(study, words);
  const each = study.cases.find((one) => String(one.id) === state.get("case")) || listed[0];
  $("case-study").value = study.id;
  if ($("case-search").value !== (state.get("find") || "")) $("case-search").value = state.get("find") || "";
  const limited = study.total > study.cases.length ? `; this page holds ${study.cases.length} of ${study.total} cases` : "";
  $("case-count").textContent = `${listed.length} ${listed.length === 1 ? "case" : "cases"}${words.length ? " found" : ""}${limited}${study.notes.map((note) => `; ${note}`).join("")}`;
  const list = $("case-list");
  const inList = list.contains(document.activeElement);
  list.hidden = !listed.length;
  list.replaceChildren(...listed.map((one) => make("li", {}, make("a", { href: addressOf(study, one), "aria-current": one === each ? "true" : null },
    one.subject, make("small", {}, !namesOldAnswer(study, one) ? one.target_new : `${one.target_true} → ${one.target_new}`)))));
  const current = list.querySelector("[aria-current]");
  // Only the list is scrolled; scrollIntoView would also scroll the page.
  if (current && inList) current.focus({ preventScroll: true });
  if (current) list.scrollTop = Math.max(0, current.offsetTop - list.offsetTop - list.clientHeight / 2);
  if (each) renderCase(study, each, listed);
  else $("case").replaceChildren(make("p", {}, "No case has these words."));
}
