"use strict";
for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const key = (row, at) => {
    const cell = row.cells[at];
    return cell.dataset.v !== undefined ? Number(cell.dataset.v) : cell.textContent;
  };
  const order = (at, number, down) => (left, right) => {
    const a = key(left, at), b = key(right, at);
    // What is not known comes last, whichever way.
    const gap = number ? (typeof a !== "number") - (typeof b !== "number") : 0;
    if (gap) return gap;
    const way = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return down ? -way : way;
  };
  const heads = [...table.tHead.rows[0].cells];
  let filtered = false, sorted = false;
  const flatten = () => table.classList.toggle("flat", filtered || sorted);
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const number = head.classList.contains("n");
      const now = head.getAttribute("aria-sort");
      const down = now ? now === "ascending" : number;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sorted = true;
      flatten();
      body.append(...[...rows].sort(order(at, number, down)));
    });
  });
  const tools = document.createElement("div");
  tools.className = "tools";
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "rows that contain";
  input.setAttribute("aria-label", "show only rows that contain this");
  const count = document.createElement("span");
  const show = () => {
    const words = input.value.toLowerCase();
    let left = 0;
    for (const row of rows) {
      row.hidden = words !== "" && !row.textContent.toLowerCase().includes(words);
      left += row.hidden ? 0 : 1;
    }
    filtered = words !== "";
    flatten();
    count.textContent = words === "" ? `${rows.length} rows` : `${left} of ${rows.length} rows`;
  };
  input.addEventListener("input", show);
  tools.append(input, count);
  table.closest(".scroll").before(tools);
  show();
}
