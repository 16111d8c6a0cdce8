// What is selected in the list: some rows, or everything that matches.

export function openSelection({ totalText, onAction }) {
  const bar = document.getElementById("selection");
  const count = document.getElementById("selected-count");
  const matching = document.getElementById("select-matching");
  let isWhole = false;

  const boxes = () => [...document.querySelectorAll("#jobs tbody .pick input")];
  const chosen = () => boxes().filter((box) => box.checked);

  function show() {
    const picked = chosen();
    if (picked.length < boxes().length) isWhole = false;
    const all = document.getElementById("pick-all");
    if (all) {
      all.checked = picked.length > 0 && picked.length === boxes().length;
      all.indeterminate = picked.length > 0 && !all.checked;
    }
    bar.hidden = picked.length === 0;
    count.textContent = isWhole ? `All ${totalText()} matching` : `${picked.length} selected`;
    const canWiden = !isWhole && all?.checked && totalText() !== String(picked.length);
    matching.hidden = !canWiden;
    matching.textContent = `Select all ${totalText()} matching`;
    bar.querySelector('[data-action="delete"]').hidden = isWhole;
  }

  function clear() {
    for (const box of chosen()) box.checked = false;
    isWhole = false;
    show();
  }

  let last = null;
  document.addEventListener("click", (event) => {
    const box = event.target;
    if (!box.matches?.("#jobs tbody .pick input")) return;
    if (event.shiftKey && last && last.isConnected) {
      const [from, to] = [boxes().indexOf(last), boxes().indexOf(box)].sort((a, b) => a - b);
      for (const between of boxes().slice(from, to + 1)) between.checked = box.checked;
    }
    last = box;
    show();
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "pick-all") for (const box of boxes()) box.checked = event.target.checked;
    if (event.target.closest?.(".pick")) show();
  });
  matching.addEventListener("click", () => {
    isWhole = true;
    show();
    bar.querySelector("[data-action]").focus();
  });
  document.getElementById("unselect").addEventListener("click", () => {
    clear();
    document.getElementById("pick-all")?.focus();
  });
  for (const button of bar.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () =>
      onAction(button.dataset.action, isWhole ? { filter: location.search.slice(1) } : { job_ids: chosen().map((box) => box.value) }, button),
    );
  }
  return { clear, show };
}
