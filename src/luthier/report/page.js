"use strict";
// The page is complete without this: it adds a search over rows, and buttons that copy commands.
const list = document.querySelector(".row-list");
if (list) {
  const search = document.createElement("input");
  search.type = "search";
  search.className = "search";
  search.placeholder = "Search these rows";
  search.setAttribute("aria-label", "Search these rows");
  const rows = Array.from(list.children, (row) => [row, row.textContent.toLowerCase()]);
  search.addEventListener("input", () => {
    const wanted = search.value.toLowerCase();
    for (const [row, text] of rows) row.classList.toggle("unmatched", !text.includes(wanted));
  });
  list.before(search);
}
if (navigator.clipboard) {
  for (const command of document.querySelectorAll(".command")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    const text = command.textContent;
    button.addEventListener("click", () => {
      navigator.clipboard.writeText(text).then(
        () => { button.textContent = "Copied"; },
        () => { button.textContent = "Select it"; },
      );
    });
    command.append(button);
  }
}
