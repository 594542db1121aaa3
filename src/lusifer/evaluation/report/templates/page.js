"use strict";
// Sort a table by a click on the head of a column, or by keyboard. Without this script the tables are not sortable.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(table, heads, column));
  });
}
function sort(table, heads, column) {
  const values = new Map(Array.from(table.tBodies[0].rows, (row) => [row, row.cells[column].dataset.value]));
  const known = Array.from(values.values()).filter((value) => value !== undefined);
  const numeric = known.every((value) => value !== "" && Number.isFinite(Number(value)));
  const before = heads[column].getAttribute("aria-sort");
  const first = numeric ? "descending" : "ascending";
  const other = numeric ? "ascending" : "descending";
  const direction = before === first ? other : first;
  const sign = direction === "ascending" ? 1 : -1;
  const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en");
  const rows = Array.from(values.keys()).sort((one, two) => {
    const [a, b] = [values.get(one), values.get(two)];
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // missing values come last
    return sign * compare(a, b);
  });
  table.tBodies[0].append(...rows);
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", direction);
}
// Print folded details too.
let folded = [];
addEventListener("beforeprint", () => {
  folded = Array.from(document.querySelectorAll("details:not([open])"));
  folded.forEach((each) => { each.open = true; });
});
addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));
