// Loaded before anything is painted, so that the page never flashes in the wrong colours.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem('agentchat.theme');
  } catch {
    // Storage may be switched off: the system's choice holds.
  }
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
})();
