// Heat maps: the value below the pointer or finger, or the one that the arrow keys lead to, is written below the map.

function prepareHeat(figure) {
  const { rows, values, left, cell, height, across } = JSON.parse(figure.dataset.heat);
  const picture = figure.querySelector("svg"), output = figure.querySelector("output");
  const scale = output.textContent;
  const box = document.createElementNS(picture.namespaceURI, "rect");
  let here = null;
  box.setAttribute("class", "here");
  box.setAttribute("width", cell);
  box.setAttribute("height", height);

  function choose(row, column) {
    here = [Math.min(Math.max(row, 0), rows.length - 1), Math.min(Math.max(column, 0), values[0].length - 1)];
    box.setAttribute("x", left + cell * here[1]);
    box.setAttribute("y", height * here[0]);
    picture.append(box);
    output.textContent = `${rows[here[0]].trim()}, ${across} ${here[1]}: ${values[here[0]][here[1]]}`;
  }

  function leave() {
    here = null;
    box.remove();
    output.textContent = scale;
  }

  function point(event) {
    const at = picture.getBoundingClientRect(), zoom = picture.viewBox.baseVal.width / at.width;
    const x = (event.clientX - at.left) * zoom - left, y = (event.clientY - at.top) * zoom;
    if (x >= 0 && y < height * rows.length) choose(Math.floor(y / height), Math.floor(x / cell));
  }

  picture.addEventListener("pointermove", point);
  picture.addEventListener("pointerdown", point);
  picture.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") leave(); });
  picture.addEventListener("blur", leave);
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [row, column] = here || [0, -step[1]];
    choose(row + step[0], column + step[1]);
  });
}
