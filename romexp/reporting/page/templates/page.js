// Sorting, filtering and browsing. The address after "#" holds the state of the view, so that a link reproduces it:
// q, model, dataset, editor (filters); sort=TABLE:COLUMN:DIRECTION; study, case, text, find, all (the case shown).
// If it has no "=", it is the id of an element. Texts of results are inserted as text nodes only, never as HTML.

const FILTERS = ["model", "dataset", "editor"];
const DIRECTIONS = ["descending", "ascending"];

/* ---- the address ---- */

const state = new URLSearchParams();

function readAddress() {
  const hash = location.hash.slice(1);
  if (hash && !hash.includes("=")) return false;
  for (const key of [...state.keys()]) state.delete(key);
  for (const [key, value] of new URLSearchParams(hash)) state.set(key, value);
  return true;
}

function show(changes, { push = false } = {}) {
  for (const [key, value] of Object.entries(changes)) {
    if (value === "" || value === null || value === undefined) state.delete(key);
    else state.set(key, value);
  }
  const address = state.toString() ? `#${state}` : location.pathname + location.search;
  history[push ? "pushState" : "replaceState"](null, "", address);
  render();
}

/* ---- sorting ---- */

function groupsOf(body) {
  // A published line or a difference stays below the measured line of the same editor.
  const groups = [];
  for (const row of body.rows) {
    if (row.className === "block") continue;
    const last = groups[groups.length - 1];
    const follows = row.dataset.role && row.dataset.role !== "measured";
    if (follows && last && row.dataset.editors === last[0].dataset.editors) last.push(row);
    else groups.push([row]);
  }
  return groups;
}

function keyOf(row, column) {
  const cell = row.cells[column];
  if (!cell) return null;
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  return cell.classList.contains("num") ? null : cell.textContent.trim();
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return sign * order;
}

function sortTable(table, column, direction) {
  const sign = direction === "descending" ? -1 : 1;
  const folded = table.closest("details");
  if (direction && folded) folded.open = true;
  for (const body of table.tBodies) {
    if (!body.original) body.original = groupsOf(body);
    const sorted = [...body.original];
    if (direction) sorted.sort((a, b) => compare(keyOf(a[0], column), keyOf(b[0], column), sign));
    body.append(...sorted.flat());
  }
  const headings = table.tHead.rows[table.tHead.rows.length - 1].cells;
  [...headings].forEach((heading, index) => heading.setAttribute("aria-sort", direction && index === column ? direction : "none"));
}

function sortingOf(id) {
  const [table, column, direction] = (state.get("sort") || "").split(":");
  return table === id && DIRECTIONS.includes(direction) ? [Number(column), direction] : [0, ""];
}

function nextDirection(table, column, numeric) {
  const order = numeric ? ["", ...DIRECTIONS] : ["", "ascending", "descending"];
  const [current, direction] = sortingOf(table.id);
  return order[(order.indexOf(current === column ? direction : "") + 1) % order.length];
}

function prepareSorting(table) {
  const headings = table.tHead.rows[table.tHead.rows.length - 1].cells;
  [...headings].forEach((heading, column) => {
    const button = make("button", { type: "button" }, ...heading.childNodes);
    button.addEventListener("click", () => {
      const direction = nextDirection(table, column, heading.classList.contains("num"));
      show({ sort: direction && `${table.id}:${column}:${direction}` });
    });
    heading.append(button);
  });
}

/* ---- filtering ---- */

const editorsOf = (row) => JSON.parse(row.dataset.editors || "[]");

function matches(row) {
  const words = (state.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
  const text = `${row.textContent} ${Object.values(row.dataset).join(" ")}`.toLowerCase();
  if (!words.every((word) => text.includes(word))) return false;
  // A row that belongs to no single model or editor, such as the unedited model, matches every choice.
  return FILTERS.every((name) => {
    const wanted = state.get(name), own = name === "editor" ? editorsOf(row) : [row.dataset[name]].filter(Boolean);
    return !wanted || !own.length || own.includes(wanted);
  });
}

function filterTable(table) {
  let visible = 0, all = 0;
  for (const body of table.tBodies) {
    let here = 0;
    for (const group of groupsOf(body)) {
      const shown = group.some(matches);
      for (const row of group) row.hidden = !shown;
      here += shown ? 1 : 0;
      all += 1;
    }
    // If an editor is chosen, a table that would show only the unedited model is hidden.
    const edited = [...body.rows].some((row) => !row.hidden && editorsOf(row).length);
    if (state.get("editor") && !edited) { for (const row of body.rows) row.hidden = true; here = 0; }
    for (const row of body.querySelectorAll("tr.block")) row.hidden = here === 0;
    visible += here;
  }
  const box = table.closest(".scroll");
  const folded = table.closest("details");
  const heading = $(table.getAttribute("aria-labelledby"));
  for (const part of folded ? [folded] : [box, heading]) part.hidden = visible === 0;
  for (const note of document.querySelectorAll(`[data-of="${table.id}"]`)) note.hidden = visible === 0;
  return [visible, all];
}

function filterAll() {
  let visible = 0, all = 0;
  for (const table of document.querySelectorAll("table.sortable")) {
    const [some, of] = filterTable(table);
    visible += some;
    all += of;
  }
  let heading = null;
  for (const part of document.querySelectorAll("#runs > h3, #runs > details")) {
    if (part.tagName === "H3") { heading = part; heading.hidden = true; continue; }
    part.hidden = !matches(part) || (state.has("editor") && !editorsOf(part).length);
    if (heading && !part.hidden) heading.hidden = false;
  }
  $("filter-count").textContent = visible === all ? "" : `${visible} of ${all} rows`;
  $("filter-text").value = state.get("q") || "";
  for (const name of FILTERS) $(`filter-${name}`).value = state.get(name) || "";
}
