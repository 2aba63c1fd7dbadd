// Draws the whole view when the page opens and whenever its address changes.

function render() {
  if ($("filters")) filterAll();
  for (const table of document.querySelectorAll("table.sortable")) sortTable(table, ...sortingOf(table.id));
  renderBrowser();
  watchCut();
}

function openTarget() {
  const hash = decodeURIComponent(location.hash.slice(1));
  const target = hash && !hash.includes("=") ? $(hash) : null;
  if (target && target.tagName === "DETAILS") {
    target.hidden = false;
    target.open = true;
    target.scrollIntoView();
  }
}

function followAddress() {
  if (readAddress()) render();
  else openTarget();
}

function start() {
  document.querySelectorAll("table.sortable").forEach(prepareSorting);
  document.querySelectorAll("[data-heat]").forEach(prepareHeat);
  if ($("filters")) {
    $("filters").hidden = false;
    $("filter-text").addEventListener("input", (event) => show({ q: event.target.value }));
    for (const name of FILTERS) $(`filter-${name}`).addEventListener("change", (event) => show({ [name]: event.target.value }));
    $("filter-reset").addEventListener("click", () => show({ q: "", model: "", dataset: "", editor: "" }));
  }
  if (data.length) {
    $("browser").hidden = false;
    $("case-study").addEventListener("change", (event) => show({ study: event.target.value, case: "", text: "", all: "" }));
    $("case-search").addEventListener("input", (event) => show({ find: event.target.value, case: "", text: "" }));
    $("case-all").addEventListener("click", () => show({ all: "1" }));
  }
  readAddress();
  render();
  openTarget();
  if (state.get("case") && $("cases")) $("cases").scrollIntoView();
  window.addEventListener("hashchange", followAddress);
  window.addEventListener("popstate", followAddress);
}

start();
