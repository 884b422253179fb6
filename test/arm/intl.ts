// What mote and Node ask of ICU, on data cut down as in the appliance: time zones, English formats, collation, host names,
// normal forms, properties of characters. Throws on the first that the data no longer answers.
import { deepStrictEqual } from "node:assert/strict";

const noon = new Date(Date.UTC(2026, 6, 1, 12));
const inZone = (timeZone: string): string =>
  new Intl.DateTimeFormat("en", { timeZone, dateStyle: "short", timeStyle: "long" }).format(noon);

const rows: readonly (readonly [what: string, got: () => unknown, wanted: unknown])[] = [
  ["zone with summer time", () => inZone("Europe/Berlin"), "7/1/26, 2:00:00 PM GMT+2"],
  ["zone with a name", () => inZone("America/New_York"), "7/1/26, 8:00:00 AM EDT"],
  ["half an hour", () => inZone("Asia/Kolkata"), "7/1/26, 5:30:00 PM GMT+5:30"],
  ["all zones", () => Intl.supportedValuesOf("timeZone").length > 400, true],
  [
    "date and number",
    () => [noon.toLocaleDateString("en-US"), (1234567.5).toLocaleString()],
    ["7/1/2026", "1,234,567.5"],
  ],
  ["unit", () => (5).toLocaleString("en", { style: "unit", unit: "megabyte" }), "5 MB"],
  ["order of letters", () => ["b", "ä", "B", "a"].sort((a, b) => a.localeCompare(b)).join(""), "aäbB"],
  ["order of numbers", () => ["n10", "n9"].sort(new Intl.Collator("en", { numeric: true }).compare)[0], "n9"],
  ["host names", () => new URL("https://bücher.example").host, "xn--bcher-kva.example"],
  ["normal forms", () => ["ﬁ".normalize("NFKC"), "é".normalize("NFD").length], ["fi", 2]],
  ["decoders", () => new TextDecoder("utf-16le").decode(new Uint8Array([0xe4, 0])), "ä"],
  ["characters", () => [..."👩ä1"].map((c) => /\p{Emoji}/u.test(c)), [true, false, true]],
  ["words", () => [...new Intl.Segmenter("en", { granularity: "word" }).segment("one two")].length, 3],
  ["another language is answered in English", () => (1.5).toLocaleString("de"), "1.5"],
];

export function testIntl(): string {
  for (const [what, got, wanted] of rows) deepStrictEqual(got(), wanted, what);
  return `intl: ${rows.length} answers of ICU ${process.versions["icu"]} as wanted`;
}
