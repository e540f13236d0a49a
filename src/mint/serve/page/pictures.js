// What is drawn: the waveform, and where each query listens.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Return a canvas's context in pixels of the screen, cleared. */
function fresh(canvas) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * scale);
  canvas.height = Math.round(canvas.clientHeight * scale);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  return context;
}

/** Draw pairs of the lowest and the highest sample of each stretch. */
export function drawWaveform(canvas, pairs) {
  const context = fresh(canvas);
  const { width, height } = canvas;
  const loudest = Math.max(0.01, ...pairs.map(([low, high]) => Math.max(-low, high)));
  const y = (value) => height / 2 - (value / loudest) * (height / 2 - 2);
  context.fillStyle = colour("--wave");
  pairs.forEach(([low, high], i) => {
    const left = (i * width) / pairs.length;
    context.fillRect(left, y(high), Math.max(1, width / pairs.length), Math.max(1, y(low) - y(high)));
  });
}

/** Draw the attention of each query, one row each; `share` is how far the steps reach across the picture. */
export function drawAttention(canvas, rows, share) {
  const context = fresh(canvas);
  const { width, height } = canvas;
  const heat = colour("--heat");
  rows.forEach((row, query) => {
    const most = Math.max(...row, 1e-9);
    const top = (query * height) / rows.length;
    row.forEach((weight, step) => {
      const left = (step * width * share) / row.length;
      const right = ((step + 1) * width * share) / row.length;
      context.fillStyle = `rgba(${heat}, ${(weight / most).toFixed(3)})`;
      context.fillRect(left, top, right - left + 0.5, height / rows.length - 1);
    });
  });
}
