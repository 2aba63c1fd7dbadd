// Says of each table that is cut that there is more, and lets it fade out on that side.

function showCut(box) {
  const right = box.scrollWidth - box.clientWidth - box.scrollLeft > 2;
  box.classList.toggle("more-right", right);
  box.classList.toggle("more-below", box.scrollHeight - box.clientHeight - box.scrollTop > 2);
  const wide = box.scrollWidth - box.clientWidth > 2;
  if (wide && !box.hint) {
    box.hint = make("p", { class: "cut" });
    box.before(box.hint);
  }
  if (!box.hint) return;
  box.hint.hidden = !wide || box.hidden || !box.clientWidth;
  if (box.querySelector("thead")) box.hint.textContent = `${columnsBeyond(box)} Scroll sideways.`.trim();
  else box.hint.textContent = "Scroll sideways to see all of it.";
}

function columnsBeyond(box) {
  const edge = box.getBoundingClientRect().right;
  const row = box.querySelector("thead tr:last-child");
  const beyond = [...row.cells].filter((cell) => cell.getBoundingClientRect().right > edge + 2).length;
  return beyond ? `${beyond} more ${beyond === 1 ? "column" : "columns"} →` : "";
}

function watchCut(root = document) {
  for (const box of root.querySelectorAll(".scroll")) {
    if (!box.watched) {
      box.watched = true;
      box.addEventListener("scroll", () => showCut(box), { passive: true });
      new ResizeObserver(() => showCut(box)).observe(box);
    }
    showCut(box);
  }
}
