// Probabilities before and after the edit, on a logarithmic scale. The probabilities of a real model are often tiny.

const SMALLEST = 1e-30;
const SUPERSCRIPTS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const powerOfTen = (exponent) => `10${[...String(exponent)].map((c) => SUPERSCRIPTS[c]).join("")}`;

// The geometric mean: probabilities of several prompts differ by orders of magnitude.
function mean(values) {
  const numbers = values.filter((value) => value !== null);
  return numbers.length ? Math.exp(numbers.reduce((a, b) => a + Math.log(Math.max(b, SMALLEST)), 0) / numbers.length) : null;
}

function probability(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 0.001) return value.toFixed(3);
  const [digits, exponent] = value.toExponential(1).split("e");
  return `${digits} × ${powerOfTen(Number(exponent))}`;
}

// The exponent at which the scale of a case begins: that of its smallest mean, at least -12 and at most -2.
function lowestExponent(values) {
  const smallest = Math.min(0.01, ...values.filter((value) => value !== null && value !== undefined));
  return Math.max(-12, Math.floor(Math.log10(smallest) + 1e-9));
}

function drawn(tag, attributes) {
  const node = document.createElementNS($("drawing").content.firstElementChild.namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// A line from 10^lowest to 1 with a ring where the probability was before and a dot where it is now.
function change(before, after, lowest, name) {
  const place = (value) => 4 + 112 * (1 - Math.max(Math.log10(Math.max(value, SMALLEST)), lowest) / lowest);
  const words = before === null ? probability(after) : `${probability(before)} before, ${probability(after)} after`;
  const picture = drawn("svg", { viewBox: "0 0 120 12", class: name, role: "img", "aria-label": words });
  picture.append(drawn("path", { class: "rail", d: "M4 6H116" }));
  if (before !== null && after !== null) picture.append(drawn("path", { class: "way", d: `M${place(before)} 6H${place(after)}` }));
  if (before !== null) picture.append(drawn("circle", { class: "from", cx: place(before), cy: 6, r: 3.6 }));
  if (after !== null) picture.append(drawn("circle", { class: "to", cx: place(after), cy: 6, r: 4.2 }));
  return picture;
}

// Both answers at the prompts of one kind: the means after the edit, the change of each, and which answer is likelier.
function changes(pairs, unedited, lowest, wantsNew) {
  const box = make("div", { class: "probability" });
  ["new", "old"].forEach((name, index) => {
    const now = mean(pairs.map((pair) => pair[index]));
    const before = unedited ? mean(unedited.map((pair) => pair[index])) : null;
    box.append(make("span", { class: name }, probability(now)), change(before, now, lowest, name));
  });
  const likelier = { "1": "o* likelier", "0": "neither likelier", "-1": "oᶜ likelier" };
  const wanted = wantsNew ? 1 : -1;
  const right = pairs.filter((pair) => pair[2] === wanted).length;
  box.append(make("em", {}, pairs.length === 1 ? likelier[pairs[0][2]] : `${likelier[wanted]}: ${right} of ${pairs.length}`));
  return box;
}
