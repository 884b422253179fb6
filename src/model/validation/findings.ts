// What validation found, and no more of it than helps: a body of 3 MiB holds a million elements that are wrong in several
// ways each, whose texts would take a gigabyte and, spread into one call, the stack. Looking ends at the bound with
// TooManyFindings, so a wrong object costs what its first thousand mistakes cost. Upstream has no such end; it has threads.
import { ApiError, type FieldError, invalid, maxCauses } from "../status.ts";

/** Ends the look at an object. Where nobody knows better, an answer without the object's name. */
export class TooManyFindings extends ApiError {
  readonly found: readonly FieldError[];
  constructor(found: readonly FieldError[]) {
    const { message, details } = invalid("", "", "", found).status;
    super(422, "Invalid", message ?? "", details);
    this.found = found;
  }
}

/** A list of findings that ends the look when it is full. */
export function findings(initial: readonly FieldError[] = []): FieldError[] {
  const made = new Findings();
  for (let at = 0; at < initial.length; at++) made.push(initial[at]!);
  return made;
}

/** `look` at every element. */
export function eachOf<T>(
  elements: readonly T[],
  look: (element: T, index: number) => readonly FieldError[],
): FieldError[] {
  const made = new Findings();
  for (let i = 0; i < elements.length; i++) {
    const found = look(elements[i]!, i);
    for (let at = 0; at < found.length; at++) made.push(found[at]!);
  }
  return made;
}

/** What `look` finds, or what it had found when there was enough. */
export function enough(look: () => readonly FieldError[]): readonly FieldError[] {
  try {
    return look();
  } catch (error) {
    if (error instanceof TooManyFindings) return error.found;
    throw error;
  }
}

/** No `Symbol.species` of its own: that makes each of them cost ten times as much, and a pod has forty. */
class Findings extends Array<FieldError> {
  override push(...added: FieldError[]): number {
    if (this.length + added.length <= maxCauses) return added.length === 0 ? this.length : super.push(...added);
    throw new TooManyFindings([...this, ...added.slice(0, maxCauses - this.length)]);
  }
}
