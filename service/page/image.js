export function startImage() {
  return { admitted() {} };
}
