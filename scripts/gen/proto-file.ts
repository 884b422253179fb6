// Reads .proto files (proto2 as go-to-protobuf writes it, proto3 as CRI, etcd and gnostic write it) into plain data.
// Only what those files use is understood; anything else stops the generator with the line that it did not know.

export interface ProtoField {
  readonly name: string;
  readonly number: number;
  /** Scalar name, or the message/enum name as written; for maps the value's type. */
  readonly type: string;
  readonly repeated: boolean;
  readonly map: boolean;
  readonly mapKey: string;
  /** Member of a `oneof`: present or absent, whatever its value. */
  readonly oneof: boolean;
}
export interface ProtoMessage {
  /** Nested messages are `Outer.Inner`. */
  readonly name: string;
  readonly fields: ProtoField[];
}
export interface ProtoEnum {
  readonly name: string;
  readonly values: { readonly name: string; readonly number: number }[];
}
export interface ProtoMethod {
  readonly service: string;
  readonly name: string;
  readonly request: string;
  readonly response: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}
export interface ProtoFile {
  readonly package: string;
  readonly messages: ProtoMessage[];
  readonly enums: ProtoEnum[];
  readonly methods: ProtoMethod[];
}

export function parseProto(text: string): ProtoFile {
  const tokens = tokenize(text);
  let at = 0;
  const file = { package: "", messages: [] as ProtoMessage[], enums: [] as ProtoEnum[], methods: [] as ProtoMethod[] };
  const next = () => tokens[at++] ?? fail("end of file");
  const peek = () => tokens[at] ?? "";
  const fail = (what: string): never => {
    throw new Error(`proto: unexpected ${what} near: ${tokens.slice(Math.max(0, at - 8), at + 4).join(" ")}`);
  };
  const expect = (token: string) => {
    const got = next();
    if (got !== token) fail(`${got} (wanted ${token})`);
  };
  /** Skips to the end of a statement or of a `{}` block. */
  const skip = () => {
    for (let depth = 0; ; ) {
      const token = next();
      if (token === "{") depth++;
      if (token === "}" && --depth === 0) return;
      if (token === ";" && depth === 0) return;
    }
  };
  const options = () => {
    if (peek() !== "[") return;
    while (next() !== "]");
  };
  const parseEnum = (prefix: string) => {
    const result: ProtoEnum = { name: prefix + next(), values: [] };
    expect("{");
    while (peek() !== "}") {
      if (peek() === "option" || peek() === "reserved") {
        skip();
        continue;
      }
      const name = next();
      expect("=");
      result.values.push({ name, number: Number(next()) });
      options();
      expect(";");
    }
    expect("}");
    file.enums.push(result);
  };
  const parseMessage = (prefix: string) => {
    const result: ProtoMessage = { name: prefix + next(), fields: [] };
    file.messages.push(result);
    expect("{");
    while (peek() !== "}") {
      const word = next();
      if (word === ";") continue;
      if (word === "message") parseMessage(`${result.name}.`);
      else if (word === "enum") parseEnum(`${result.name}.`);
      else if (word === "option" || word === "reserved" || word === "extensions") skip();
      else if (word === "oneof") {
        next();
        expect("{");
        while (peek() !== "}") result.fields.push({ ...parseField(next()), oneof: true });
        expect("}");
      } else result.fields.push(parseField(word));
    }
    expect("}");
  };
  const parseField = (first: string): ProtoField => {
    let type = first;
    const repeated = first === "repeated";
    if (repeated || first === "optional" || first === "required") type = next();
    let mapKey = "";
    if (type === "map") {
      expect("<");
      mapKey = next();
      expect(",");
      type = next();
      expect(">");
    }
    const name = next();
    expect("=");
    const number = Number(next());
    options();
    expect(";");
    return { name, number, type, repeated, map: mapKey !== "", mapKey, oneof: false };
  };
  const parseService = () => {
    const service = next();
    expect("{");
    while (peek() !== "}") {
      const word = next();
      if (word === "option") {
        skip();
        continue;
      }
      if (word !== "rpc") fail(word);
      const name = next();
      const argument = (): [string, boolean] => {
        expect("(");
        const stream = peek() === "stream";
        if (stream) next();
        const type = next();
        expect(")");
        return [type, stream];
      };
      const [request, requestStream] = argument();
      expect("returns");
      const [response, responseStream] = argument();
      if (peek() === "{") skip();
      else expect(";");
      if (peek() === ";") next();
      file.methods.push({ service, name, request, response, requestStream, responseStream });
    }
    expect("}");
  };
  while (at < tokens.length) {
    const word = next();
    if (word === "message") parseMessage("");
    else if (word === "enum") parseEnum("");
    else if (word === "service") parseService();
    else if (word === "package") {
      file.package = next();
      expect(";");
    } else if (word === "syntax" || word === "import" || word === "option" || word === "extend") skip();
    else if (word !== ";") fail(word);
  }
  return file;
}

function tokenize(text: string): string[] {
  const withoutComments = text
    .replace(/\/\*[\s\S]*?\*\//g, " ")
    .replace(/"(?:[^"\\]|\\.)*"|\/\/[^\n]*/g, (match) => (match.startsWith("//") ? " " : match));
  return withoutComments.match(/"(?:[^"\\]|\\.)*"|[A-Za-z0-9_.-]+|[^\s]/g) ?? [];
}
