// The retrieval browser: the same query, one row per method.
READY.push(() => {
  for (const root of document.querySelectorAll(".retrieval")) browser(root, Number(root.dataset.chapter));
});

function browser(root, chapter) {
  const {methods, retrieval, tiles} = DATA.chapters[chapter];
  const protocols = Object.keys(retrieval);
  const there = name => methods.map((method, n) => [n, method[0]]).filter(([n]) => retrieval[name].methods[n]);
  const first = there(protocols[0]);
  const chosen = {protocol: protocols[0], trial: 0, camera: "all", a: first[0][0], b: first.length > 1 ? first[1][0] : null, which: "all", order: "difference", limit: 5, only: null};
  const controls = el("div", {class: "controls"}), plot = el("div"), list = el("div");
  root.replaceChildren(controls, plot, list);
  const set = change => { Object.assign(chosen, {limit: 5, only: null}, change); draw(); };
  const held = () => retrieval[chosen.protocol];
  const other = () => held().side === "visible" ? "infrared" : "visible";
  const person = (sheet, place) => tiles[sheet].person[place];
  const precision = (method, query) => held().methods[method].precision[chosen.trial][query];
  const hits = (method, query) => held().methods[method].nearest[chosen.trial][query].map(place => { const who = person(`test-${other()}`, place); return who >= 0 && who === person(`test-${held().side}`, held().query[query]); });
  const difference = query => chosen.b === null ? precision(chosen.a, query)
    : precision(chosen.a, query) === null || precision(chosen.b, query) === null ? null : precision(chosen.a, query) - precision(chosen.b, query);

  function matching() {
    const tests = {
      all: () => true,
      a: query => difference(query) > 0, b: query => difference(query) < 0,
      both: query => hits(chosen.a, query)[0] && (chosen.b === null || hits(chosen.b, query)[0]),
      neither: query => !hits(chosen.a, query)[0] && (chosen.b === null || !hits(chosen.b, query)[0]),
      onlyA: query => hits(chosen.a, query)[0] && !hits(chosen.b, query)[0],
      onlyB: query => !hits(chosen.a, query)[0] && hits(chosen.b, query)[0],
    };
    const camera = query => tiles[`test-${held().side}`].camera[held().query[query]];
    return held().query.map((_, query) => query).filter(query => held().query[query] >= 0
      && held().methods[chosen.a].nearest[chosen.trial][query].length
      && (chosen.camera === "all" || camera(query) === Number(chosen.camera)) && tests[chosen.which](query));
  }

  function draw() {
    const able = there(chosen.protocol).map(([n]) => n);  // a method whose queries differ has no row under this protocol
    if (!able.includes(chosen.a)) chosen.a = able[0];
    if (chosen.b !== null && !able.includes(chosen.b)) chosen.b = able.find(n => n !== chosen.a) ?? null;
    if (chosen.b === null && !["all", "both", "neither"].includes(chosen.which)) chosen.which = "all";
    const now = held(), two = chosen.b !== null;
    chosen.trial = Math.min(chosen.trial, now.trials - 1);
    const cameras = [...new Set(now.query.filter(place => place >= 0).map(place => tiles[`test-${now.side}`].camera[place]))].sort((a, b) => a - b);
    const [a, b] = [methods[chosen.a][0], two ? methods[chosen.b][0] : ""];
    const kinds = two
      ? [["all", "all queries"], ["a", `${a} wins`], ["b", `${b} wins`], ["onlyA", `only ${a} right at rank 1`], ["onlyB", `only ${b} right at rank 1`], ["both", "both right at rank 1"], ["neither", "both wrong at rank 1"]]
      : [["all", "all queries"], ["both", "right at rank 1"], ["neither", "wrong at rank 1"]];
    controls.replaceChildren(
      select("protocol", protocols.map(name => [name, name]), chosen.protocol, value => set({protocol: value})),
      now.trials > 1 ? select("trial", [...Array(now.trials).keys()].map(n => [n, n + 1]), chosen.trial, value => set({trial: Number(value)})) : "",
      cameras.length > 1 ? select("camera", [["all", "all"], ...cameras.map(n => [n, n < 0 ? "unknown" : n])], chosen.camera, value => set({camera: value})) : "",
      two ? select("A", there(chosen.protocol), chosen.a, value => set({a: Number(value)})) : "",
      two ? select("B", there(chosen.protocol), chosen.b, value => set({b: Number(value)})) : "",
      select("show", kinds, chosen.which, value => set({which: value})),
      select("order", [["difference", two ? "largest difference" : "worst first"], ["best", two ? "A − B, falling" : "best first"], ["query", "by query"]], chosen.order, value => set({order: value})),
    );
    const found = matching();
    plot.replaceChildren(differences(found));
    queries(found);
  }

  function differences(found) {
    const values = found.map(query => [query, difference(query)]).filter(([, value]) => value !== null).sort((x, y) => y[1] - x[1]);
    if (!values.length) return el("p", {class: "lead"}, found.length ? "" : "No such query.");
    const two = chosen.b !== null, most = Math.max(1, ...values.map(([, value]) => Math.abs(value)));
    const zero = two ? 50 : 100;
    const svg = el("svg", {class: "differences", viewBox: `0 0 ${values.length} 100`, preserveAspectRatio: "none", role: "img", "aria-label": "average precision by query"});
    values.forEach(([query, value], column) => {
      const size = Math.abs(value) / most * (two ? 49 : 98);
      const colour = methods[value < 0 ? chosen.b : chosen.a][1] % 10;
      svg.append(el("g", {class: `bar m${colour}`, onclick: () => { set({only: query}); }},
        el("title", {}, `query ${held().row[query]}: ${(value / 10).toFixed(1)}`),
        el("rect", {x: column, y: 0, width: 1, height: 100, fill: "transparent"}),
        el("rect", {x: column + 0.08, y: value < 0 ? zero : zero - size, width: 0.84, height: size, fill: "var(--c)"})));
    });
    const [a, b] = [methods[chosen.a][0], two ? methods[chosen.b][0] : ""];
    const won = values.filter(([, value]) => value > 0).length, lost = values.filter(([, value]) => value < 0).length;
    const mean = values.reduce((sum, [, value]) => sum + value, 0) / values.length / 10;
    const part = held().trials > 1 ? ` Trial ${chosen.trial + 1} alone; the table has the mean over all trials and seeds.` : "";
    const text = two
      ? `AP of ${a} minus that of ${b}, ${values.length} queries: higher for ${won}, lower for ${lost}, mean ${mean < 0 ? "−" : "+"}${Math.abs(mean).toFixed(1)}.${part} Press a bar to see its query.`
      : `AP of ${values.length} queries, mean ${mean.toFixed(1)}.${part} Press a bar to see its query.`;
    return el("div", {}, svg, el("p", {class: "lead"}, text));
  }

  function queries(found) {
    const orders = {
      difference: (x, y) => chosen.b === null ? (difference(x) ?? 1e9) - (difference(y) ?? 1e9) : Math.abs(difference(y) ?? 0) - Math.abs(difference(x) ?? 0),
      best: (x, y) => (difference(y) ?? -1e9) - (difference(x) ?? -1e9),
      query: (x, y) => x - y,
    };
    const sorted = chosen.only === null ? [...found].sort(orders[chosen.order]) : [chosen.only];
    list.replaceChildren(...sorted.slice(0, chosen.limit).map(one));
    if (chosen.only !== null) list.append(el("button", {class: "more", type: "button", onclick: () => set({})}, "all queries"));
    else if (sorted.length > chosen.limit) list.append(el("button", {class: "more", type: "button",
      onclick: () => { chosen.limit += 10; queries(found); }}, `more (${sorted.length - chosen.limit})`));
  }

  function one(query) {
    const now = held(), sheet = `test-${now.side}`, place = now.query[query], camera = tiles[sheet].camera[place];
    const gap = difference(query);
    const rows = el("div", {class: "rows"});
    for (const [n, name] of there(chosen.protocol)) {
      const right = hits(n, query), ap = precision(n, query);
      rows.append(el("span", {class: `name m${methods[n][1] % 10}`}, name),
        el("span", {class: "ap"}, ap === null ? "AP –" : `AP ${(ap / 10).toFixed(1)}`),
        el("span", {class: "found"}, ...now.methods[n].nearest[chosen.trial][query].map((found, rank) => tile(chapter, `test-${other()}`, found, right[rank] ? "hit" : "miss"))));
    }
    return el("article", {class: "query"},
      el("div", {class: "head"}, tile(chapter, sheet, place),
        el("p", {}, el("b", {}, `query ${now.row[query]}`), `: ${named(person(sheet, place))}${camera >= 0 ? `, camera ${camera}` : ""}, ${now.side}`,
          chosen.b !== null && gap !== null ? `; AP of ${methods[chosen.a][0]} ${gap < 0 ? "−" : "+"}${Math.abs(gap / 10).toFixed(1)} against ${methods[chosen.b][0]}` : "")),
      rows);
  }

  draw();
}
