"use strict";
// Draws every chart in the colours of the reader's scheme, hands over its files, sorts tables, copies commands.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const themes = read("chart-themes");
  const boxes = all(".chart");
  const views = new Map();

  function element(tag, text, attributes) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
    return made;
  }

  // The theme for a chart of this width: fewer ticks and legend columns where there is less room.
  function fitted(theme, width) {
    const room = Math.max(120, width - 110);
    const columns = Math.max(1, Math.min(5, Math.floor(room / 120)));
    return Object.assign({}, theme, {
      legend: Object.assign({}, theme.legend, { columns, labelLimit: room / columns - 24 }),
      axisXQuantitative: Object.assign({}, theme.axisXQuantitative, { tickCount: width < 520 ? 4 : 8 }),
    });
  }

  async function draw(box, scheme) {
    const old = views.get(box);
    if (old) old.finalize();
    views.set(box, await window.vegaEmbed(box, read(box.dataset.spec), {
      actions: false,
      renderer: "svg",
      config: fitted(themes[scheme], box.clientWidth),
      tooltip: { theme: scheme },
    }));
    // A drawing is one picture for a screen reader: its numbers stand in a table behind the button.
    for (const part of box.querySelectorAll("[role]")) part.removeAttribute("role");
    for (const part of box.querySelectorAll("[aria-label], [aria-roledescription]")) {
      part.removeAttribute("aria-label");
      part.removeAttribute("aria-roledescription");
    }
  }

  async function drawAll() {
    const scheme = dark.matches ? "dark" : "light";
    const results = await Promise.allSettled(boxes.map((box) => draw(box, scheme)));
    results.forEach((result, index) => {
      if (result.status === "fulfilled") return;
      boxes[index].textContent = "This chart could not be drawn: " + result.reason;
      console.error(result.reason);
    });
    document.documentElement.dataset.charts = scheme;
  }

  function hand(name, type, content) {
    const link = element("a", undefined, { download: name });
    link.href = URL.createObjectURL(new Blob([content], { type }));
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // Text that a spreadsheet would take for a formula is given a quote in front; numbers stay numbers.
  function cell(value) {
    if (value === null || value === undefined) return "";
    let text = String(value);
    if (typeof value === "string" && /^[=+@\t\r-]/.test(text) && !/^-?[\d.]+$/.test(text)) text = "'" + text;
    return /[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  }
  const csv = (rows) => rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";

  function numbers(box) {
    const rows = read("spec-" + box.dataset.of).datasets[box.dataset.numbers];
    const names = Object.keys(rows[0]);
    return [names, ...rows.map((row) => names.map((name) => row[name]))];
  }

  function table(rows) {
    const shown = (value) => typeof value === "number" ? String(Number(value.toPrecision(4))) : value ?? "–";
    const made = element("table");
    const head = element("tr");
    rows[0].forEach((name) => head.append(element("th", name.replaceAll("_", " "), { scope: "col" })));
    made.append(element("thead"), element("tbody"));
    made.tHead.append(head);
    for (const row of rows.slice(1)) {
      const line = element("tr");
      row.forEach((value) => line.append(element("td", shown(value))));
      made.tBodies[0].append(line);
    }
    return made;
  }

  function toggleNumbers(button, box) {
    const there = box.parentElement.querySelector(".numbers-of");
    if (there) there.remove();
    else {
      const label = button.getAttribute("aria-label");
      const holder = element("div", undefined, { class: "scroll numbers-of", role: "region", tabindex: "0", "aria-label": label });
      holder.append(table(numbers(box)));
      box.after(holder);
    }
    button.setAttribute("aria-expanded", String(!there));
  }

  async function svg(id) {
    const spec = read("spec-" + id);
    if (spec.width === "container") spec.width = 640;
    const made = await window.vegaEmbed(element("div"), spec, { actions: false, renderer: "none", config: fitted(themes.light, 640) });
    const text = await made.view.toSVG();
    made.finalize();
    return text;
  }

  const give = {
    svg: async (id) => hand(id + ".svg", "image/svg+xml", await svg(id)),
    pdf: (id) => {
      const bytes = Uint8Array.from(atob(document.getElementById("pdf-" + id).textContent.trim()), (c) => c.charCodeAt(0));
      hand(id + ".pdf", "application/pdf", bytes);
    },
    csv: (id, box) => hand(id + ".csv", "text/csv", csv(numbers(box))),
    numbers: (id, box, button) => toggleNumbers(button, box),
  };
  for (const box of all(".files[data-of]")) {
    for (const button of box.querySelectorAll("button")) {
      button.addEventListener("click", () => give[button.dataset.kind](box.dataset.of, box, button));
    }
  }
  for (const button of all(".csv-of-table")) {
    button.addEventListener("click", () => {
      const holder = button.closest(".table");
      const rows = Array.from(holder.querySelectorAll("tr"), (row) => Array.from(row.cells, (one) => one.textContent.trim()));
      hand(holder.querySelector("h3").textContent.toLowerCase().replace(/[^a-z0-9]+/g, "-") + ".csv", "text/csv", csv(rows));
    });
  }

  function sort(head, column) {
    const body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
    const order = (one, two) => {
      const [a, b] = [Number(one), Number(two)];
      if (one !== "" && two !== "" && !Number.isNaN(a) && !Number.isNaN(b)) return a - b;
      return String(one).localeCompare(String(two), "en", { numeric: true });
    };
    const rows = Array.from(body.rows).sort((one, two) => (down ? -1 : 1) * order(key(one), key(two)));
    body.append(...rows);
  }
  for (const head of all("table.sortable th")) {
    const button = element("button", head.textContent, { type: "button", class: "sort" });
    head.replaceChildren(button);
    button.addEventListener("click", () => sort(head, head.cellIndex));
  }

  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        window.getSelection().selectAllChildren(code);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  // A link to a finding opens the list it stands in.
  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const folded = target && target.closest("details");
    if (folded) {
      folded.open = true;
      target.scrollIntoView();
    }
  }
  window.addEventListener("hashchange", reveal);
  window.addEventListener("beforeprint", () => all("details").forEach((one) => { one.open = true; }));
  dark.addEventListener("change", drawAll);
  drawAll().then(reveal);
})();
