// Runs before anything is drawn, so that a chosen theme doesn't flash.
try {
  const theme = localStorage.getItem("signalman-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* storage may be forbidden */ }
