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
  for (const each of initial) made.push(each);
  return made;
}

/** `look` at every element. */
export function eachOf<T>(
  elements: readonly T[],
  look: (element: T, index: number) => readonly FieldError[],
): FieldError[] {
  const made = new Findings();
  for (let i = 0; i < elements.length; i++) for (const each of look(elements[i]!, i)) made.push(each);
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

class Findings extends Array<FieldError> {
  /** What is made from it by filter and its like is an ordinary list. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
  override push(...added: FieldError[]): number {
    for (const each of added) {
      if (this.length >= maxCauses) throw new TooManyFindings([...this]);
      super.push(each);
    }
    return this.length;
  }
}
