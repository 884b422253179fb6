import { expect, test } from "vitest";
import { controllersToHandOn } from "./cgroups.ts";

test.each([
  ["cpuset cpu io memory hugetlb pids rdma misc\n", "+cpu +memory +pids +cpuset +hugetlb"],
  ["cpuset cpu io memory pids\n", "+cpu +memory +pids +cpuset"],
  ["cpu\n", "+cpu"],
  ["", ""],
])("only what the kernel has is handed on: %j", (available, written) => {
  expect(controllersToHandOn(available)).toBe(written);
});
