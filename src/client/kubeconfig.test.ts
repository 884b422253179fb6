import { expect, test } from "vitest";
import { formatKubeconfig, readKubeconfig } from "./kubeconfig.ts";

const noFiles = async (path: string): Promise<string> => {
  throw new Error(`unexpected read of ${path}`);
};
const written = formatKubeconfig({
  name: "default",
  server: "https://127.0.0.1:6443",
  ca: "CA",
  cert: "CERT",
  key: "KEY",
});

test("what is written is read back", async () => {
  expect(await readKubeconfig(written, { readFile: noFiles })).toEqual({
    server: "https://127.0.0.1:6443",
    ca: "CA",
    cert: "CERT",
    key: "KEY",
    insecureSkipTlsVerify: false,
    namespace: "default",
  });
});

test("everything is embedded as kubectl wants it", () => {
  expect(written).toContain("server: https://127.0.0.1:6443\n");
  expect(written).toContain(`client-key-data: ${Buffer.from("KEY").toString("base64")}\n`);
  expect(written).toContain("current-context: default\n");
});

test("files and another context", async () => {
  const text = `
current-context: a
clusters: [{name: c, cluster: {server: "https://x", certificate-authority: ca.pem, tls-server-name: inner}}]
users: [{name: u, user: {tokenFile: token}}]
contexts: [{name: a, context: {cluster: none, user: u}}, {name: b, context: {cluster: c, user: u, namespace: shop}}]
`;
  const readFile = async (path: string) => `content of ${path}\n`;
  expect(await readKubeconfig(text, { context: "b", readFile })).toEqual({
    server: "https://x",
    ca: "content of ca.pem\n",
    token: "content of token",
    serverName: "inner",
    insecureSkipTlsVerify: false,
    namespace: "shop",
  });
  await expect(readKubeconfig(text, { readFile })).rejects.toMatchObject({
    code: "KUBECONFIG_INVALID",
    message: 'invalid kubeconfig: clusters has no entry named "none"',
  });
});

test.each([
  ["nothing", "", "kubeconfig is not an object"],
  ["no context", "clusters: []", "current-context is not set"],
  [
    "a plugin",
    "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: s}}]\nusers: [{name: u, user: {exec: {command: x}}}]",
    "user field exec is not supported",
  ],
])("%s is refused by name", async (_, text, message) => {
  await expect(readKubeconfig(text, { readFile: noFiles })).rejects.toMatchObject({
    message: `invalid kubeconfig: ${message}`,
  });
});
