// Files that are dropped on a mode.

/**
 * @param {HTMLElement} mode takes them anywhere
 * @param {HTMLElement} place shows that it does
 * @param {(file: File) => void} open is given the first of them
 */
export function startDropping(mode, place, open) {
  const { classList } = place;
  const over = (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    classList.add("dropping");
  };
  mode.addEventListener("dragenter", over);
  mode.addEventListener("dragover", over);
  mode.addEventListener("dragleave", (event) => {
    if (!mode.contains(event.relatedTarget)) classList.remove("dropping");
  });
  mode.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer?.files ?? [];
    classList.remove("dropping");
    if (!file) return;
    event.preventDefault();
    open(file);
  });
}
