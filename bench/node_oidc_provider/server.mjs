// node-oidc-provider as a peer: one process, everything in memory, plain http on loopback behind a
// proxy that would speak TLS. Usage: node server.mjs PORT SECRET CLIENTS
// (CLIENTS: the metadata of further clients, a JSON array)
import { generateKeyPairSync } from 'node:crypto';

import { Provider } from 'oidc-provider';

const [port, secret, further] = process.argv.slice(2);
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const resourceServer = {
  scope: 'mapper/link mapper/resolve',
  audience: 'https://mapper.example',
  accessTokenTTL: 900,
  accessTokenFormat: 'jwt',
  jwt: { sign: { alg: 'ES256' } },
};

function client(metadata) {
  return {
    ...(metadata.jwks ? {} : { client_secret: secret }),
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    scope: resourceServer.scope,
    id_token_signed_response_alg: 'ES256',
    ...metadata,
  };
}

const provider = new Provider('https://authz.example', {
  clients: [
    { client_id: 'ministry', token_endpoint_auth_method: 'client_secret_post' },
    { client_id: 'mapper', token_endpoint_auth_method: 'client_secret_basic' },
    ...JSON.parse(further),
  ].map(client),
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256' }] },
  scopes: resourceServer.scope.split(' '),
  ttl: { ClientCredentials: 900 },
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      // Without a resource the token is opaque and kept in memory, to be introspected.
      defaultResource: () => undefined,
      getResourceServerInfo: () => resourceServer,
    },
  },
});
provider.proxy = true;
provider.listen(Number(port), '127.0.0.1');
