// Before the first paint: the theme that was chosen, and the sign that there is script.
document.documentElement.classList.add("js");
try {
  const theme = localStorage.getItem("llm-queue.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is switched off: the theme of the system it is.
}
