// A client registers its public key through openid-client and obtains a token with it: values come as
// JSON on stdin, and what was seen is printed.
import * as client from 'openid-client'

const { issuer, initialAccessToken, metadata } = JSON.parse(
  await new Response(process.stdin).text(),
)
const pair = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, [
  'sign',
  'verify',
])
const jwk = { ...(await crypto.subtle.exportKey('jwk', pair.publicKey)), kid: 'own' }
const config = await client.dynamicClientRegistration(
  new URL(issuer),
  {
    ...metadata,
    token_endpoint_auth_method: 'private_key_jwt',
    jwks: { keys: [jwk] },
  },
  client.PrivateKeyJwt({ key: pair.privateKey, kid: jwk.kid }),
  {
    algorithm: 'oauth2',
    initialAccessToken,
    execute: [client.allowInsecureRequests], // the server under test is on loopback
  },
)
// Every process of the server knows the client within a second.
await new Promise((resolve) => setTimeout(resolve, 1_000))
const token = await client.clientCredentialsGrant(config)
const described = await client.tokenIntrospection(config, token.access_token)
console.log(JSON.stringify({ registered: config.clientMetadata(), token, described }))
