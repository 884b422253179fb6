// Quantities as exact numbers, for comparing.
import { quantityIn } from "../quantity.ts";

/** Nano units; undefined when the text is no quantity. */
export const nanoOf = (quantity: string | number | undefined): bigint | undefined => quantityIn(quantity)?.nano;

/** Is it a whole number of units? */
export const isWhole = (nano: bigint): boolean => nano % 1_000_000_000n === 0n;
