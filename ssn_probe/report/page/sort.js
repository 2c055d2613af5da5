// Tables sort by a click on a column's head: figures by size, words by letter, what is absent and the average last.
// Without this script nothing is missing.
"use strict";
const figure = (text) => {
  const found = text.replace(/[−–]/g, "-").replace(/,(?=\d{3})/g, "").match(/-?\.?\d[\d.]*(e[-+]?\d+)?/);
  return found ? Number(found[0]) : NaN;
};
const sort = (table, head, column) => {
  const upward = head.getAttribute("aria-sort") !== "ascending";
  for (const one of table.tHead.rows[0].cells) one.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", upward ? "ascending" : "descending");
  const figures = head.classList.contains("n");
  const absent = (text) => (figures ? Number.isNaN(figure(text)) : /^[–-]?$/.test(text));
  const compare = figures ? (a, b) => figure(a) - figure(b) : (a, b) => a.localeCompare(b);
  const total = (row) => row.classList.contains("total");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [row.cells[column].textContent.trim(), row]);
  const order = ([a, one], [b, other]) =>
    total(one) - total(other) || absent(a) - absent(b) || (upward ? compare(a, b) : compare(b, a)) || 0;
  body.append(...rows.sort(order).map(([, row]) => row));
};
for (const table of document.querySelectorAll("table:not(.claims):not(.responses)")) {
  if (table.tBodies.length !== 1 || table.tBodies[0].rows.length < 3) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head, column));
    head.append(button);
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
