(() => {
  const live = document.getElementById("live");
  const history = new Map();
  const at = (value, path) => path.split(".").reduce((v, step) => v?.[step], value);
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const two = (n) => String(n).padStart(2, "0");
  const write = {
    text: (text) => text,
    count: (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f"),
    bytes: (n) => {
      let unit = 0;
      while (n >= 1024 && unit < 5) { n /= 1024; unit++; }
      const digits = unit === 0 || n >= 100 ? 0 : n >= 10 ? 1 : 2;
      return (Math.floor(n * 10 ** digits) / 10 ** digits).toFixed(digits) + " " + units[unit];
    },
    span: (ms) => {
      const s = Math.floor(ms / 1000), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
      if (d) return d + " d " + two(h % 24) + " h";
      if (h) return h + " h " + two(m % 60) + " min";
      if (m) return m + " min " + two(s % 60) + " s";
      return s + " s";
    },
  };
  const draw = (cell, status) => {
    const last = history.get(cell) ?? { rates: [] };
    const now = { total: at(status, cell.dataset.rate), time: status.uptime_ms, rates: last.rates };
    history.set(cell, now);
    if (last.total === undefined || now.time <= last.time) return;
    const rate = Math.max(0, now.total - last.total) * 1000 / (now.time - last.time);
    now.rates.push(rate);
    if (now.rates.length > 60) now.rates.shift();
    const top = Math.max(4, ...now.rates);
    const points = now.rates.map((r, i) => 2 * (60 - now.rates.length + i) + 1 + "," + (19 - 18 * r / top).toFixed(1));
    cell.querySelector("polyline").setAttribute("points", points.join(" "));
    cell.lastElementChild.textContent = write.count(Math.round(rate));
  };
  const refresh = async () => {
    try {
      const status = await (await fetch("/api/status", { signal: AbortSignal.timeout(3000) })).json();
      for (const element of document.querySelectorAll("[data-v]")) {
        const value = at(status, element.dataset.v);
        if (value === undefined) return location.reload();
        element.textContent = write[element.dataset.f](value);
      }
      document.querySelectorAll("[data-rate]").forEach((svg) => draw(svg, status));
      live.textContent = "live";
      live.classList.remove("lost");
    } catch {
      live.textContent = "no answer";
      live.classList.add("lost");
    }
    live.hidden = false;
    setTimeout(refresh, 1000);
  };
  refresh();
})();
