// The association explorer. A pair: [cluster, images, commonest person, images of that person, images of known people,
// partner, share, and of the partner the same four; state, tiles, its tiles].
const PERSON = 2, OTHER = 8, STATE = 11;
const STATES = ["no partner", "right", "wrong", "unknown"];

READY.push(() => {
  for (const root of document.querySelectorAll(".associations")) explorer(root, Number(root.dataset.chapter));
});

function explorer(root, chapter) {
  const {methods, associations} = DATA.chapters[chapter];
  const known = methods.map((method, n) => [n, method[0]]).filter(([n]) => associations[n]);
  const chosen = {method: known[0][0], direction: 0, at: null, which: "all", person: null, limit: 12};
  const controls = el("div", {class: "controls"}), drawn = el("div"), list = el("div");
  root.replaceChildren(controls, drawn, list);
  const set = change => { Object.assign(chosen, {limit: 12}, change); draw(); };

  function draw() {
    const held = associations[chosen.method];
    chosen.direction = Math.min(chosen.direction, held.directions.length - 1);
    const direction = held.directions[chosen.direction];
    if (chosen.at === null || chosen.at >= held.epochs.length) chosen.at = held.epochs.length - 1;
    const pairs = direction.pairs[chosen.at];
    controls.replaceChildren(
      select("method", known, chosen.method, value => set({method: Number(value), person: null})),
      select("direction", held.directions.map((d, n) => [n, `${d.from} → ${d.to}`]), chosen.direction, value => set({direction: Number(value), person: null})),
      select("show", [["all", "all clusters"], ["1", "right"], ["2", "wrong"], ["0", "no partner"], ["changed", "flipped since the epoch before"]],
        chosen.which, value => set({which: value})),
      chosen.person === null ? "" : el("button", {class: "step", type: "button", onclick: () => set({person: null})}, `person ${chosen.person} ✕`),
    );
    drawn.replaceChildren(key(), epochs(held, direction), range(held), ends(`epoch ${held.epochs[0]}`, `epoch ${held.epochs.at(-1)}`),
      people(held, direction), ends("people, by how long they are right; first epoch on top", ""), counts(held, pairs));
    cards(held, direction, pairs);
  }

  function epochs(held, direction) {
    const wide = 1000, high = 90, step = wide / held.epochs.length;
    const most = Math.max(1, ...direction.pairs.map(pairs => pairs.length));
    const svg = el("svg", {class: "epochs", viewBox: `0 0 ${wide} ${high}`, preserveAspectRatio: "none", style: "height:90px", role: "img",
      "aria-label": `clusters by epoch: ${direction.pairs.map((pairs, n) => `epoch ${held.epochs[n]}: ${tally(pairs)[1]} right of ${pairs.length}`).join("; ")}`});
    direction.pairs.forEach((pairs, n) => {
      const count = tally(pairs);
      const group = el("g", {class: n === chosen.at ? "now" : "", onclick: () => set({at: n})},
        el("title", {}, `epoch ${held.epochs[n]}: ${count[1]} right, ${count[2]} wrong, ${count[0]} without partner`),
        el("rect", {class: "back", x: n * step, y: 0, width: step, height: high}));
      let y = high;
      for (const state of [1, 2, 3, 0]) {
        const size = count[state] / most * (high - 4);
        y -= size;
        group.append(el("rect", {class: `f${state}`, x: n * step + step * 0.12, y, width: step * 0.76, height: size}));
      }
      svg.append(group);
    });
    return svg;
  }

  function key() {
    return el("ul", {class: "legend"}, ...[1, 2, 0].map(state => el("li", {}, el("span", {class: `key s${state}`}, STATES[state]))));
  }

  function ends(left, right) {
    return el("p", {class: "ends"}, el("span", {}, left), el("span", {}, right));
  }

  function range(held) {
    return el("input", {type: "range", min: 0, max: held.epochs.length - 1, value: chosen.at, "aria-label": "epoch",
      oninput: event => { const value = Number(event.target.value); set({at: value}); drawn.querySelector("input").focus(); }});
  }

  function people(held, direction) {
    const right = states => [...states].filter(state => state === "1").length;
    const order = Object.entries(direction.people).sort((a, b) => right(b[1]) - right(a[1]));
    const rows = held.epochs.length;
    const svg = el("svg", {class: "people", viewBox: `0 0 ${order.length} ${rows}`, preserveAspectRatio: "none", role: "img",
      "aria-label": "each column a person, each row an epoch, first epoch on top: right, wrong or without partner"});
    order.forEach(([person, states], column) => {
      const group = el("g", {onclick: () => set({person: Number(person), which: "all"})}, el("title", {}, `person ${person}`));
      for (let start = 0; start < rows;) {
        let stop = start;
        while (stop < rows && states[stop] === states[start]) stop++;
        group.append(el("rect", {class: `f${states[start]}`, x: column, y: start, width: 0.92, height: stop - start}));
        start = stop;
      }
      if (Number(person) === chosen.person) group.append(el("rect", {x: column, y: 0, width: 0.92, height: rows, fill: "none", stroke: "currentColor", "stroke-width": 2, "vector-effect": "non-scaling-stroke"}));
      svg.append(group);
    });
    return svg;
  }

  function counts(held, pairs) {
    const count = tally(pairs);
    const text = el("p", {class: "counts lead"}, "Epoch ", el("b", {}, String(held.epochs[chosen.at])), `, seed ${held.seed}: `);
    text.append(el("b", {}, String(count[1])), " right, ", el("b", {}, String(count[2])), " wrong, ", el("b", {}, String(count[0])), ` without partner, of ${pairs.length} clusters.`);
    return text;
  }

  function cards(held, direction, pairs) {
    const before = chosen.at > 0;
    const flipped = pair => {
      const states = direction.people[pair[PERSON]];
      return before && states && states[chosen.at] !== states[chosen.at - 1];
    };
    const found = pairs.filter(pair => (chosen.person === null || pair[PERSON] === chosen.person || pair[OTHER] === chosen.person)
      && (chosen.which === "all" || (chosen.which === "changed" ? flipped(pair) : pair[STATE] === Number(chosen.which))));
    const rank = [1, 3, 0, 2];  // wrong ones come first
    found.sort((x, y) => rank.indexOf(y[STATE]) - rank.indexOf(x[STATE]) || y[1] - x[1]);
    const shown = el("div", {class: "cards"}, ...found.slice(0, chosen.limit).map(pair => card(held, direction, pair)));
    list.replaceChildren(shown);
    if (!found.length) list.append(el("p", {class: "lead"}, "No such cluster at this epoch."));
    if (found.length > chosen.limit) list.append(el("button", {class: "more", type: "button",
      onclick: () => { chosen.limit += 24; cards(held, direction, pairs); }}, `more (${found.length - chosen.limit})`));
  }

  function card(held, direction, pair) {
    const [cluster, size, person, showing, known, partner, share, theirs, other, showingThere, knownThere, state, mine, yours] = pair;
    const side = (name, number, count, who, often, of, tiles) => el("div", {},
      el("div", {class: "strip"}, ...tiles.map(place => tile(chapter, `train-${name}`, place))),
      el("p", {}, number < 0 ? "–" : `${name} ${number}: ${count} images, ${who < 0 ? "unknown people" : `commonest person ${who}: ${often} of ${of}${of < count ? " known" : ""}`}`));
    const history = el("div", {class: "history", role: "img", "aria-label": "over the epochs"});
    const states = direction.people[person] || "";
    [...states].forEach((known, n) => history.append(el("i", {class: `s${known}${n === chosen.at ? " now" : ""}`, title: `epoch ${held.epochs[n]}: ${STATES[known]}`})));
    return el("article", {class: `card s${state}`},
      el("h3", {}, person < 0 ? `cluster ${cluster}` : `person ${person}`, el("span", {class: "verdict"}, `${state === 1 ? "✓ " : state === 2 ? "✕ " : ""}${STATES[state]}`)),
      el("div", {class: "pair"}, side(direction.from, cluster, size, person, showing, known, mine), el("span", {"aria-hidden": "true"}, "→"), side(direction.to, partner, theirs, other, showingThere, knownThere, yours)),
      partner < 0 ? "" : el("p", {class: "share"}, `${share} % of ${direction.from} ${cluster} are labelled ${direction.to} ${partner}`),
      history);
  }

  draw();
}

function tally(pairs) {
  const count = [0, 0, 0, 0];
  for (const pair of pairs) count[pair[STATE]]++;
  return count;
}
