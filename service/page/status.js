export function startStatus() {}
