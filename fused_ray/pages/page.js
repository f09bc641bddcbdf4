"use strict";
(() => {
  const root = document.documentElement, toggle = document.getElementById("theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const told = () => { toggle.textContent = dark() ? "Light" : "Dark"; toggle.setAttribute("aria-label", `${toggle.textContent} colours`); };
  toggle.hidden = false;
  toggle.onclick = () => { root.dataset.theme = dark() ? "light" : "dark"; told(); };
  matchMedia("(prefers-color-scheme: dark)").onchange = told;
  told();

  const tip = document.getElementById("tip"), said = document.getElementById("said");
  let lit = null;
  const leave = () => { tip.hidden = true; if (lit) lit.classList.remove("on"); lit = null; };
  const show = (mark) => {
    if (mark === lit) return;
    leave();
    lit = mark;
    mark.classList.add("on");
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const at = mark.getBoundingClientRect(), box = tip.getBoundingClientRect();
    const left = at.left + at.width / 2 - box.width / 2, above = at.top - box.height - 8;
    tip.style.left = `${Math.max(6, Math.min(left, root.clientWidth - box.width - 6))}px`;
    tip.style.top = `${above < 6 ? at.bottom + 8 : above}px`;
  };
  for (const chart of document.querySelectorAll("svg.chart")) {
    const name = chart.querySelector("title");
    chart.setAttribute("aria-label", name.textContent);
    name.remove(); // else it would cover what is said of a point
    const marks = [...chart.querySelectorAll("[data-tip]")];
    const points = marks.filter((mark) => mark.classList.contains("m"));
    let places = [];
    chart.onpointerenter = () => { places = points.map((mark) => mark.getBoundingClientRect()); };
    chart.onpointermove = (event) => {
      const under = event.target.closest("[data-tip]");
      if (under) { show(under); return; }
      let best = -1, least = 30;
      places.forEach((at, number) => {
        const far = Math.hypot(event.clientX - at.left - at.width / 2, event.clientY - at.top - at.height / 2);
        if (far < least) { least = far; best = number; }
      });
      if (best < 0) leave(); else show(points[best]);
    };
    chart.onpointerleave = leave;
    chart.onblur = leave;
    chart.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") leave();
      if (!step || !marks.length) return;
      event.preventDefault();
      const now = marks.indexOf(lit);
      show(marks[now < 0 ? 0 : (now + step + marks.length) % marks.length]);
      said.textContent = tip.textContent;
    };
  }
  addEventListener("scroll", leave, { passive: true });

  const worth = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  const order = (a, b) => typeof a !== typeof b ? (typeof a === "number" ? -1 : 1)
    : typeof a === "number" ? a - b : a.localeCompare(b);
  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    if (body.rows.length < 2) continue;
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.onclick = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => order(worth(a, column), worth(b, column)));
        body.append(...(down ? rows.reverse() : rows));
      };
    });
  }
})();
