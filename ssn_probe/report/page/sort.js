// Tables sort by a click on a column's head: figures by size, words by letter. Without this script nothing is missing.
"use strict";
const figure = (text) => {
  const found = text.replace(/[−–]/g, "-").replace(/,(?=\d{3})/g, "").match(/-?\.?\d[\d.]*(e[-+]?\d+)?/);
  return found ? Number(found[0]) : NaN;
};
const compare = (one, other) => {
  const [a, b] = [figure(one), figure(other)];
  if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
  return Number.isNaN(a) ? one.localeCompare(other) : a - b;
};
const sort = (table, head, column) => {
  const upward = head.getAttribute("aria-sort") !== "ascending";
  for (const one of table.tHead.rows[0].cells) one.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", upward ? "ascending" : "descending");
  const body = table.tBodies[0];
  const words = head.classList.contains("n") ? compare : (a, b) => a.localeCompare(b);
  const rows = [...body.rows].map((row) => [row.cells[column].textContent.trim(), row]);
  rows.sort(([a], [b]) => (upward ? words(a, b) : words(b, a)));
  body.append(...rows.map(([, row]) => row));
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
