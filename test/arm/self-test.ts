// What must behave the same where addresses and integers have 32 bits: engine, datastore and codecs; and what is left of
// ICU's data. Plain Node, no test runner, so that it runs under user-mode emulation from one bundle. Throws on the first mismatch.
import { testCodecs } from "./codecs.ts";
import { testDatastore } from "./datastore.ts";
import { testIntl } from "./intl.ts";

const golden = process.argv[2];
if (golden === undefined) throw new Error("usage: self-test FOLDER-OF-GOLDEN-OBJECTS");
console.log(testIntl());
console.log(await testDatastore());
console.log(await testCodecs(golden));
console.log(`${process.arch}: engine, datastore and codecs agree with their models`);
