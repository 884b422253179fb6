import { expect, test } from "vitest";
import { tokenUsage } from "./token-flags.ts";
import { verbError } from "./verbs.ts";

test.each<[string | undefined, string]>([
  [undefined, "mote token needs one of: create, list, delete, generate, rotate"],
  ["craete", 'mote token has no "craete"; did you mean create?'],
  ["foo", 'mote token has no "foo"; use one of create, list, delete, generate, rotate'],
  ["delete", "this is how it is used: mote token delete TOKEN..."],
])("%s", (verb, message) => {
  expect(verbError("token", verb, tokenUsage)).toMatchObject({ code: "CLI_USAGE", message });
});
