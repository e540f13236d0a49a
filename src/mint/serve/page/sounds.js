// Sounds that the browser makes: recordings, and examples without a file.

const RATE = 16000;

/** Return mono samples in [-1, 1] as the bytes of a WAV file with 16 bits. */
export function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((one, i) => view.setUint8(at + i, one.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((one, i) => view.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, one)), true));
  return new Blob([view], { type: "audio/wav" });
}

const EXAMPLES = {
  bell: (t) => [1, 2.76, 5.4, 8.93].reduce(
    (sum, ratio, i) => sum + Math.sin(2 * Math.PI * 440 * ratio * t) * Math.exp(-t * (1 + 1.5 * i)) / (2 + i), 0),
  rain: () => (Math.random() - 0.5) * 0.25 + (Math.random() < 0.004 ? Math.random() - 0.5 : 0),
  drum: (t) => {
    const since = t % 0.5;
    return Math.sin(2 * Math.PI * (60 * since + 6 * (1 - Math.exp(-30 * since)))) * Math.exp(-9 * since)
      + (Math.random() - 0.5) * 0.4 * Math.exp(-60 * since);
  },
  whistle: (t) => 0.4 * Math.sin(2 * Math.PI * (1200 * t + 180 * t * t)) * Math.min(1, 8 * t, 8 * (4 - t)),
};

/** Return an example of four seconds as a WAV file. */
export function example(name) {
  const samples = Float32Array.from({ length: 4 * RATE }, (_, i) => EXAMPLES[name](i / RATE));
  return wav(samples, RATE);
}

/** Begin to record; the result's `stop` returns a WAV file. */
export async function record() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  recorder.ondataavailable = (event) => pieces.push(event.data);
  recorder.start();
  return {
    async stop() {
      await new Promise((done) => { recorder.onstop = done; recorder.stop(); });
      stream.getTracks().forEach((track) => track.stop());
      // The server need not know the browser's own format.
      const context = new AudioContext();
      const decoded = await context.decodeAudioData(await new Blob(pieces).arrayBuffer());
      await context.close();
      const mixed = new Float32Array(decoded.length);
      for (let channel = 0; channel < decoded.numberOfChannels; channel += 1) {
        decoded.getChannelData(channel).forEach((one, i) => { mixed[i] += one / decoded.numberOfChannels; });
      }
      return wav(mixed, decoded.sampleRate);
    },
  };
}
