// Tables sort by a press on a heading: first the largest on top, then the smallest. Empty places stay below.
READY.push(() => {
  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.querySelectorAll("thead th")];
    heads.forEach((head, column) => {
      const text = head.textContent;
      head.replaceChildren(el("button", {type: "button", onclick: () => sort(table, heads, column)}, text));
    });
  }
  for (const box of document.querySelectorAll("select.protocols")) {
    box.addEventListener("change", () => {
      for (const shown of box.closest("section").querySelectorAll("[data-protocol]")) shown.hidden = shown.dataset.protocol !== box.value;
    });
  }
});

function sort(table, heads, column) {
  const falling = heads[column].getAttribute("aria-sort") !== "descending";
  heads.forEach(head => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", falling ? "descending" : "ascending");
  const body = table.tBodies[0];
  const value = row => {
    const cell = row.cells[column], text = cell.textContent.trim();
    const number = cell.dataset.value !== undefined ? Number(cell.dataset.value) : Number.parseFloat(text);
    return text === "" || text === "–" ? null : column > 0 && !Number.isNaN(number) ? number : text;
  };
  const rows = [...body.rows].map(row => [value(row), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return falling && column > 0 ? -order : column > 0 ? order : falling ? order : -order;
  });
  body.append(...rows.map(([, row]) => row));
}
