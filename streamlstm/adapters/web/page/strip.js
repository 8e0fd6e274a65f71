// A heat strip: a column per stretch of time. Height says the same as colour; an alert has a cap.

const NONE = -3, WARMING = -2, NO_VALUE = -1, IN_ALERT = 100;
const FULL = 60; // tenths of decades at full height: one event in a million

let colours = null;
const schemes = matchMedia("(prefers-color-scheme: dark)");
schemes.addEventListener("change", () => (colours = null));

export function themeColours() {
  if (colours) return colours;
  const style = getComputedStyle(document.documentElement);
  const names = ["calm", "raised", "unusual", "line", "muted", "text", "accent", "band", "surface", "ground"];
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  return colours;
}

// Put buckets together, the worst of each group, so that there are `columns` of them.
export function columnsOf(strip, buckets, most) {
  const shown = strip.slice(-buckets);
  const group = Math.ceil(buckets / most);
  const columns = [];
  for (let i = 0; i < shown.length; i += group) columns.push(Math.max(...shown.slice(i, i + group)));
  return columns;
}

export function drawStrip(canvas, strip, buckets, flaggedAt) {
  const scale = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const colour = themeColours();
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const columns = columnsOf(strip, buckets, 60);
  const step = width / columns.length;
  const gap = step > 3 ? 1 : 0;
  columns.forEach((value, place) => {
    const x = place * step;
    if (value === NONE) {
      pen.fillStyle = colour.line;
      pen.fillRect(x, height - 1, step - gap, 1);
    } else if (value === WARMING) {
      pen.fillStyle = colour.line;
      pen.fillRect(x, height - 4, Math.max(1, (step - gap) / 2), 4);
    } else if (value === NO_VALUE) {
      pen.strokeStyle = colour.muted;
      pen.lineWidth = 1;
      pen.strokeRect(x + 0.5, height - 5.5, Math.max(1, step - gap - 1), 5);
    } else {
      const inAlert = value >= IN_ALERT;
      const tenths = inAlert ? value - IN_ALERT : value;
      const tall = 3 + (height - 6) * Math.min(1, tenths / FULL);
      pen.fillStyle = inAlert || tenths >= flaggedAt ? colour.unusual : tenths >= flaggedAt - 10 ? colour.raised : colour.calm;
      pen.fillRect(x, height - tall, step - gap, tall);
      if (inAlert) pen.fillRect(x, 0, step - gap, 2);
    }
  });
}
