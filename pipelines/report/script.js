
"use strict";
{
  const make = (kind, words, of) => Object.assign(document.createElement(kind), { textContent: words, ...of });
  // The number of a cell that has nothing else but its deviation, unit, interval or count; NaN for a date, an id or a text.
  const N = String.raw`[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?`, of = String.raw`of \d+(?: seeds)?`;
  const whole = RegExp(String.raw`^\[?(${N})(?: ?%| ± ${N}| \((?:N = )?${N}\)| \[${N} ${of}\]| ${of}|, ${N}\]| / (?:${N}|–)| n\.d\.)*$`, "i");
  const number = text => parseFloat((whole.exec(text) || [])[1]);

  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0], rows = [...body.rows];
    const words = (row, k) => row.cells[k].textContent.trim();
    const heads = [...table.tHead.rows[0].cells];
    if (rows.length > 2) heads.forEach((head, k) => {
      if (!head.textContent) return;
      const button = make("button", "", { type: "button", title: "Sort by this column" });
      button.append(...head.childNodes);
      button.onclick = () => {
        const way = { ascending: "descending", descending: "none" }[head.ariaSort] || "ascending";
        heads.forEach(other => other.ariaSort = null);
        head.ariaSort = way === "none" ? null : way;
        const filled = rows.map(row => words(row, k)).filter(text => !/^(?:$|[–(]|n\/a$)/.test(text));
        const numeric = filled.length && filled.every(text => !isNaN(number(text)));
        const sign = way === "descending" ? -1 : 1;
        const order = (a, b) => {
          if (!numeric) return sign * words(a, k).localeCompare(words(b, k), "en", { numeric: true });
          const [x, y] = [number(words(a, k)), number(words(b, k))];
          return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : sign * (x - y);
        };
        body.append(...(way === "none" ? rows : [...rows].sort(order)));
      };
      head.replaceChildren(button);
    });
    if (rows.length > 11) {
      const box = make("input", "", { type: "search", placeholder: `Search ${rows.length} rows`, ariaLabel: "Search this table" });
      const count = make("output", "");
      box.oninput = () => {
        const asked = box.value.toLowerCase().split(/\s+/);
        rows.forEach(row => row.hidden = !asked.every(word => row.textContent.toLowerCase().includes(word)));
        count.textContent = box.value && `${rows.filter(row => !row.hidden).length} of ${rows.length}`;
      };
      const line = make("div", "", { className: "find" });
      line.append(box, count);
      table.parentElement.before(line);
    }
  }

  const look = () => document.querySelectorAll(".scroll").forEach(box => box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1));
  addEventListener("resize", look);
  document.addEventListener("toggle", look, true);
  document.addEventListener("change", look);
  look();

  const dark = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement;
  const button = make("button", "", { type: "button", className: "colours" });
  const other = () => (root.style.colorScheme || (dark.matches ? "dark" : "light")) === "dark" ? "light" : "dark";
  const name = () => button.textContent = other() === "dark" ? "Dark" : "Light";
  button.onclick = () => { root.style.colorScheme = other(); name(); };
  dark.onchange = name;
  name();
  document.querySelector("header").append(button);

  let folded = [];
  addEventListener("beforeprint", () => { folded = [...document.querySelectorAll("details:not([open])")]; folded.forEach(part => part.open = true); });
  addEventListener("afterprint", () => folded.forEach(part => part.open = false));
}
