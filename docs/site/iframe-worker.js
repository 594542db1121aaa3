// Search on pages that are opened as files: browsers start no worker from a file, so a hidden frame does its work.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = `<script>
        postMessage = message => parent.postMessage(message, "*");
        importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((done, failed) => {
          const script = document.createElement("script");
          Object.assign(script, {src: url, onload: done, onerror: failed});
          document.head.appendChild(script);
        })), Promise.resolve());
      </script><script src="${url}"></script>`;
      this.loaded = new Promise(done => frame.addEventListener("load", () => done(frame.contentWindow)));
      window.addEventListener("message", event => {
        if (event.source === frame.contentWindow) this.dispatchEvent(new MessageEvent("message", {data: event.data}));
      });
      document.body.appendChild(frame);
    }
    postMessage(message) {
      // Not by target.postMessage, which is the frame's own way back.
      this.loaded.then(target => target.dispatchEvent(new MessageEvent("message", {data: message})));
    }
  };
  window.Worker = window.IFrameWorker;
}
