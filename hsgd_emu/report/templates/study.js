// What the reader has picked: the target, one value of each axis that is not drawn, and the sides of a cloud.
const state = { target: START, picks: {}, x: 0, y: 1 };
const plots = [...document.querySelectorAll("[data-map]")];

function figureOf(plot) {
  const picked = Object.values(state.picks);
  const key = plot.dataset.key.replace(/\*/g, () => picked.shift());
  return FIGURES[plot.dataset.map][state.target][key];
}

function draw() {
  for (const plot of plots) {
    const { data, layout, text } = figureOf(plot);
    const words = (at) => (Array.isArray(at) ? at.map(words) : HOVERS[state.target][at]);
    for (const trace of data) {
      if (trace.customdata) trace.hovertext = words(trace.customdata);
      if (plot.dataset.map.startsWith("cloud")) {
        for (const side of ["x", "y"]) trace[side] = trace.customdata.map((at) => CLOUD_AXES[state[side]].at[at]);
      }
    }
    if (plot.dataset.map.startsWith("cloud")) {
      for (const side of ["x", "y"]) layout[`${side}axis`] = { ...CLOUD_AXES[state[side]].layout };
    }
    Plotly.react(plot, data, { ...layout, datarevision: JSON.stringify(state) }, CONFIG);
    plot.closest("figure").querySelector("figcaption").textContent = text;
  }
}

for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    state.target = Number(button.dataset.show);
    for (const other of document.querySelectorAll("[data-show]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    for (const block of document.querySelectorAll("[data-target]")) {
      block.hidden = block.dataset.target !== button.dataset.show;
    }
    draw();
  });
}

for (const select of document.querySelectorAll("[data-pick]")) {
  state.picks[select.dataset.pick] = select.value;
  select.addEventListener("change", () => {
    state.picks[select.dataset.pick] = select.value;
    // The same choice stands above each group of maps.
    for (const other of document.querySelectorAll(`[data-pick="${select.dataset.pick}"]`)) other.value = select.value;
    draw();
  });
}

for (const select of document.querySelectorAll("[data-side]")) {
  state[select.dataset.side] = Number(select.value);
  select.addEventListener("change", () => {
    state[select.dataset.side] = Number(select.value);
    for (const other of document.querySelectorAll(`[data-side="${select.dataset.side}"]`)) other.value = select.value;
    draw();
  });
}

draw();
