// Read values off a chart; set one method off from the others; find a person on all maps.
READY.push(() => {
  for (const figure of document.querySelectorAll("figure.chart")) readable(figure);
  for (const key of document.querySelectorAll("button.key")) {
    key.addEventListener("click", () => {
      const lit = key.getAttribute("aria-pressed") !== "true";
      const chapter = key.closest(".chapter");
      for (const other of chapter.querySelectorAll("button.key"))
        other.setAttribute("aria-pressed", String(lit && other.dataset.method === key.dataset.method));
      for (const charts of chapter.querySelectorAll(".charts")) {
        charts.classList.toggle("focused", lit);
        for (const line of charts.querySelectorAll(".line")) line.classList.toggle("lit", line.dataset.method === key.dataset.method);
      }
    });
  }
  for (const maps of document.querySelectorAll(".maps")) {
    maps.addEventListener("pointerover", event => {
      const group = event.target.dataset ? event.target.dataset.group : undefined;
      maps.classList.toggle("focused", group !== undefined);
      for (const dot of maps.querySelectorAll(".dot")) dot.classList.toggle("lit", dot.dataset.group === group);
    });
    maps.addEventListener("pointerleave", () => maps.classList.remove("focused"));
  }
});

function readable(figure) {
  const {x: [low, high, left, right], label, lines} = JSON.parse(figure.dataset.lines);
  const svg = figure.querySelector("svg"), out = figure.querySelector(".readout"), cursor = figure.querySelector(".cursor");
  const all = [...new Set(lines.flatMap(([, , points]) => points.filter(([, y]) => y !== null).map(([x]) => x)))].sort((a, b) => a - b);
  const box = svg.viewBox.baseVal;
  const show = event => {
    const area = svg.getBoundingClientRect();
    const part = ((event.clientX - area.left) / area.width - left) / (right - left);
    const wanted = low + part * (high - low);
    const x = all.reduce((best, value) => Math.abs(value - wanted) < Math.abs(best - wanted) ? value : best, all[0]);
    const place = (left + (x - low) / (high - low) * (right - left)) * box.width;
    cursor.setAttribute("d", `M${place} 10V${box.height - 38}`);
    const found = lines.map(([name, colour, points]) => [name, colour, (points.find(([at]) => at === x) || [])[1]]);
    found.sort((a, b) => (b[2] ?? -Infinity) - (a[2] ?? -Infinity));
    out.replaceChildren(`${label} ${x}: `);
    for (const [name, colour, y] of found)
      if (y !== null && y !== undefined) out.append(el("b", {class: `m${colour % 10}`}, name), ` ${y.toFixed(1)}  `);
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", () => { cursor.setAttribute("d", ""); out.replaceChildren(); });
}
