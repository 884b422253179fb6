// Where the passwords of nodes lie: k3s's names.
export const namespace = "kube-system";
export const secretType = "k3s.cattle.io/node-password";
const suffix = ".node-password.k3s";
export const secretName = (node: string): string => `${node.toLowerCase()}${suffix}`;
export const nodeOfSecret = (name: string): string => name.slice(0, -suffix.length);
