import { expect, test } from "vitest";
import { LinkRewriter, rewriteLink } from "./html-links.ts";

const prefix = "/api/v1/namespaces/ns/pods/web:80/proxy";
const context = { prefix, backendHost: "10.0.0.1:80", requestHost: "api:6443" };

test.each([
  ["/style.css", `${prefix}/style.css`],
  ["/a/?b=c#d", `${prefix}/a/?b=c#d`],
  ["/", `${prefix}/`],
  ["style.css", "style.css"],
  ["../up", "../up"],
  ["", ""],
  ["#here", "#here"],
  ["mailto:a@b", "mailto:a@b"],
  ["http://10.0.0.1:80/x", `${prefix}/x`],
  ["//10.0.0.1:80/x", `${prefix}/x`],
  ["https://api:6443/x", `https://api:6443${prefix}/x`],
  ["http://elsewhere/x", "http://elsewhere/x"],
  [`${prefix}/x`, `${prefix}/x`],
])("%s becomes %s", (address, expected) => expect(rewriteLink(address, context)).toBe(expected));

const cases: [string, string, string][] = [
  ["a link", '<a href="/rewriteme">test</a>', `<a href="${prefix}/rewriteme">test</a>`],
  ["single quotes, other attributes", "<IMG alt='>' SRC = '/a' x>", `<IMG alt='>' SRC = '${prefix}/a' x>`],
  ["without quotes", "<a href=/a/b>", `<a href=${prefix}/a/b>`],
  ["entities", '<a href="/a?b=1&amp;c=2">', `<a href="${prefix}/a?b=1&amp;c=2">`],
  ["an attribute that is no address", '<a title="/a">', '<a title="/a">'],
  ["an element that has none", '<p href="/a">', '<p href="/a">'],
  ["a comment", '<!-- <a href="/a"> --><a href="/a">', `<!-- <a href="/a"> --><a href="${prefix}/a">`],
  [
    "a script",
    `<script src="/s">x='<a href="/a">'</script><a href="/a">`,
    `<script src="${prefix}/s">x='<a href="/a">'</script><a href="${prefix}/a">`,
  ],
  ["text", "1 < 2 and 2 > 1 <", "1 < 2 and 2 > 1 <"],
  ["a tag that does not end", '<a href="/a', '<a href="/a'],
];

test.each(cases)("%s", (_name, html, expected) => {
  const whole = new LinkRewriter(context);
  expect(whole.write(html) + whole.end()).toBe(expected);
});

test.each(cases)("%s, byte by byte", (_name, html, expected) => {
  const rewriter = new LinkRewriter(context);
  let out = "";
  for (const char of html) out += rewriter.write(char);
  expect(out + rewriter.end()).toBe(expected);
});

test("a tag without an end is not held for ever", () => {
  const rewriter = new LinkRewriter(context);
  let out = "";
  for (let i = 0; i < 20; i++) out += rewriter.write(i === 0 ? `<a ${"x".repeat(10_000)}` : "x".repeat(10_000));
  expect(out.length).toBeGreaterThan(60_000);
});
