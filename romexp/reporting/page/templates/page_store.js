// Cases: those in the page, and those in files beside it. A page that was opened from a disk may not read files but can
// run scripts, so each file is a script that calls takeCases.

const data = $("data") ? JSON.parse($("data").textContent) : [];
const waiting = new Map(); // by file name, what to call when it is there

for (const study of data) {
  study.known = new Map(study.cases.map((each) => [each.id, each]));
  study.list = study.cases.map((each) => [each.id, each.subject, each.fact, each.target_new, each.target_true]);
}

function takeCases(id, part, content) {
  const study = data.find((one) => one.id === id);
  if (!study) return;
  if (part === null) {
    study.list = content;
    study.indexed = true;
    study.place = new Map(content.map(([number], index) => [number, index]));
  } else for (const each of content) study.known.set(each.id, each);
}

function load(study, name, done) {
  const file = `${study.folder}/${study.id}-${name}.js`;
  if (waiting.has(file)) { waiting.get(file).push(done); return; }
  waiting.set(file, [done]);
  const script = make("script", { src: file });
  const finish = (failed) => {
    const calls = waiting.get(file);
    waiting.delete(file);
    script.remove();
    if (failed) study.missing = file;
    for (const call of calls) call();
  };
  script.addEventListener("load", () => finish(false));
  script.addEventListener("error", () => finish(true));
  document.body.append(script);
}

// Whether the list of all cases is there; otherwise it is asked for once, and then the page is drawn again.
function indexed(study) {
  if (!study.held || study.indexed || study.missing) return true;
  load(study, "index", render);
  return false;
}

// A case by its number; undefined while its file is being read.
function caseOf(study, number) {
  const known = study.known.get(number);
  if (known || !study.held || study.missing || !indexed(study)) return known;
  const place = study.place.get(number);
  if (place !== undefined) load(study, Math.floor(place / study.in_file), render);
  return undefined;
}
