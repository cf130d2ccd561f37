"use strict";
// Draws every chart in the colours of the reader's scheme, and again when the scheme changes.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const themes = read("chart-themes");
  const boxes = Array.from(document.querySelectorAll(".chart"));
  const views = new Map();

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

  dark.addEventListener("change", drawAll);
  drawAll();
})();
