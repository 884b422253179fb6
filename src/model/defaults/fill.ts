// The one step that all defaulting is made of: give a field a value where it has none.

/** Sets the fields that are absent, null or an empty string (which Go cannot tell from absent). */
export function fill<T extends object>(target: T, defaults: Partial<T>): void {
  for (const [field, value] of Object.entries(defaults) as [keyof T, T[keyof T]][]) {
    const now: unknown = target[field];
    if (now === undefined || now === null || now === "") target[field] = value;
  }
}

/** The same for numbers that upstream holds without a pointer: zero counts as absent too. */
export function fillNumbers<T extends object>(target: T, defaults: Partial<T>): void {
  for (const [field, value] of Object.entries(defaults) as [keyof T, T[keyof T]][]) {
    if (!target[field]) target[field] = value;
  }
}
