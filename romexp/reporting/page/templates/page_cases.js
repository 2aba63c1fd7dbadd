// Shows one case at a time: its prompts, what was measured before and after the edit, and the generated texts.

const KINDS = [
  ["rewrite", "edited prompt", "edited prompts", true],
  ["paraphrase", "paraphrase", "paraphrases", true],
  ["neighborhood", "neighbour", "neighbours", false],
  ["attribute", "attribute prompt", "attribute prompts", true],
];

const studyShown = () => data.find((study) => study.id === state.get("study")) || data[0];
const found = (study, words) => study.list.filter((fields) => {
  const text = fields.join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
});
const addressOf = (study, number) => {
  const params = new URLSearchParams(state);
  params.set("study", study.id);
  params.set("case", number);
  params.delete("text");
  return `#${params}`;
};

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
  const lowest = lowestExponent(sides.flatMap(([, side]) => kinds.flatMap(([kind]) => meansOf(side && side[kind]))));
  const head = make("tr", {}, make("th", { scope: "col" }, "Model"));
  for (const [kind, one, many] of kinds) {
    const n = counted(sides, kind);
    head.append(make("th", { scope: "col" }, hasFlags(sides, kind) ? one : n === 1 ? one : `${n} ${many}, mean`));
  }
  const body = make("tbody");
  for (const [label, side] of sides) {
    const row = make("tr", {}, make("th", { scope: "row" }, label));
    const before = (kind) => (side !== each.pre && each.pre && each.pre[kind] && each.pre[kind].length ? each.pre[kind] : null);
    for (const [kind, , , wantsNew] of kinds) {
      const values = side && side[kind];
      const cell = !side ? "not measured" : !values || !values.length ? "–" : hasFlags(sides, kind) ? rightTokens(values) : changes(values, before(kind), lowest, wantsNew);
      row.append(make("td", {}, cell));
    }
    body.append(row);
  }
  const scale = kinds.some(([kind]) => !hasFlags(sides, kind));
  return [scrollBox("Measured on this case", make("table", {}, make("thead", {}, head), body)),
    ...(scale ? [make("p", { class: "note", id: "case-scale" }, `Logarithmic scale from ${powerOfTen(lowest)} to 1; ○ unedited, ● after the edit.`)] : [])];
}

// The two mean probabilities at prompts of one kind; nothing for flags.
function meansOf(pairs) {
  if (!pairs || !pairs.length || !Array.isArray(pairs[0])) return [];
  return [0, 1].map((index) => mean(pairs.map((pair) => pair[index])));
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
  const place = listed.findIndex(([number]) => number === each.id);
  const go = (step) => { const to = listed[place + step]; if (to) show({ study: study.id, case: String(to[0]), text: "" }); };
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
      " and of the old one ", make("span", { class: "old" }, "oᶜ"), ", geometric means over their tokens and prompts.")]),
    ...measuredTable(study, each), ...generations(study, each), promptTable(study, each));
  watchCut($("case"));
}

// How many cases there are, and where those are that are not in the page.
function countText(study, listed, words) {
  const parts = [`${listed.length} ${listed.length === 1 ? "case" : "cases"}${words.length ? " found" : ""}`];
  const held = study.held || study.cases.length;
  if (study.missing) parts.push(`${study.missing} is not beside this page, which holds ${study.cases.length} of ${study.total} cases`);
  else if (study.list.length < held) parts.push(`the first of ${held}; the others are in files beside this page`);
  if (held < study.total) parts.push(`page and files hold ${held} of ${study.total} cases`);
  if (study.shared !== null) parts.push(`the ${study.shared} that all editors share come first`);
  return [...parts, ...study.notes].join("; ");
}

function renderList(study, listed, each) {
  const list = $("case-list");
  const inList = list.contains(document.activeElement);
  const at = Math.max(listed.findIndex(([number]) => each && number === each.id), 0);
  const some = listed.slice(Math.max(0, at - 200), at + 300); // a list of thousands would be slow
  list.hidden = !listed.length;
  list.replaceChildren(...some.map(([number, subject, , target, old]) => make("li", {}, make("a", { href: addressOf(study, number), "aria-current": each && number === each.id ? "true" : null },
    subject, make("small", {}, study.kind === "zsre" || !old ? target : `${old} → ${target}`)))));
  if (some.length < listed.length) list.append(make("li", {}, make("small", {}, `${some.length} of ${listed.length} are listed: search for the others`)));
  const current = list.querySelector("[aria-current]");
  // Only the list is scrolled; scrollIntoView would also scroll the page.
  if (current && inList) current.focus({ preventScroll: true });
  if (current) list.scrollTop = Math.max(0, current.offsetTop - list.offsetTop - list.clientHeight / 2);
}

function renderBrowser() {
  if (!data.length) return;
  const study = studyShown();
  const words = (state.get("find") || "").toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length || state.has("all")) indexed(study);
  const listed = found(study, words);
  const wanted = state.has("case") ? Number(state.get("case")) : null;
  const chosen = wanted === null ? undefined : caseOf(study, wanted);
  const loading = wanted !== null && !chosen && waiting.size;
  const first = listed.length && !loading ? caseOf(study, listed[0][0]) : undefined;
  const each = chosen || first;
  $("case-study").value = study.id;
  if ($("case-search").value !== (state.get("find") || "")) $("case-search").value = state.get("find") || "";
  $("case-count").textContent = countText(study, listed, words);
  const more = $("case-all");
  more.hidden = !study.held || study.indexed || Boolean(study.missing);
  more.textContent = `List all ${study.held} cases`;
  renderList(study, listed, each);
  if (each) renderCase(study, each, listed);
  else $("case").replaceChildren(make("p", {}, waiting.size ? "Reading the case …" : "No case has these words."));
}
