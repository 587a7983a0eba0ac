// Questions to ask of a page that is open.
window.audit = (() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = {};
  const rgba = (text) => {
    if (!known[text]) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = text;
      canvas.fillRect(0, 0, 1, 1);
      known[text] = [...canvas.getImageData(0, 0, 1, 1).data];
    }
    return [...known[text]];
  };
  const over = (top, below) => top.slice(0, 3).map((v, i) => (v * top[3] + below[i] * (255 - top[3])) / 255);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      layers.push(colour);
      if (colour[3] === 255) break;
    }
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255]);
  };
  const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  const seen = (element) => element.getClientRects().length > 0 && getComputedStyle(element).visibility !== "hidden";

  // Words on bars and on the cells of maps stand on other colours than the card's.
  const SKIPPED = ".hidden, .bars, .hoverlayer, [data-on-colour] .scatterlayer text, [data-on-colour] .annotation *";

  return {
    // Texts whose contrast is below AA: 4.5, or 3 where they are large.
    faint() {
      const found = [];
      for (const element of document.querySelectorAll("main *")) {
        if (!own(element) || !seen(element) || element.closest(SKIPPED)) continue;
        const style = getComputedStyle(element);
        const svg = element instanceof SVGElement;
        const below = ground(svg ? element.closest(".plot") ?? element : element);
        const colour = rgba(svg ? style.fill : style.color);
        colour[3] *= Number(style.opacity);
        const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
        const value = contrast(over(colour, below), below);
        if (value < (large ? 3 : 4.5)) found.push(`${value.toFixed(2)} ${element.tagName}.${element.getAttribute("class") ?? ""}: ${element.textContent.slice(0, 60)}`);
      }
      return found;
    },
    // How far the page reaches beyond the window, in pixels.
    overflow: () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    // Of each figure: how many traces are shown, how many of them plotly calculated, and how many marks are in its SVG.
    drawn: () =>
      [...document.querySelectorAll(".plot")].map((plot) => ({
        id: plot.id,
        traces: (plot.data ?? []).filter((trace) => trace.visible !== false).length,
        calculated: (plot.calcdata ?? []).length,
        marks: [...plot.querySelectorAll(".plot-container path, .plot-container image")].filter((p) => p.getAttribute("d") || p.href).length,
      })),
    // Controls without a name for those who hear the page.
    nameless: () =>
      [...document.querySelectorAll("button, summary, select, [role=img], [role=region], [role=group]")]
        .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length))
        .map((e) => e.outerHTML.slice(0, 80)),
  };
})();
