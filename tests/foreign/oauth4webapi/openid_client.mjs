// One token's life through openid-client, bound by DPoP if there is a key for it: values come as JSON
// on stdin, and what was seen is printed.
import * as client from 'openid-client'

const { issuer, id, jwk, algorithm, secret, asserted, scope, bound } = JSON.parse(
  await new Response(process.stdin).text(),
)
const proof = secret
  ? asserted
    ? client.ClientSecretJwt(secret)
    : client.ClientSecretPost(secret)
  : client.PrivateKeyJwt({
      key: await crypto.subtle.importKey('jwk', jwk, algorithm, false, ['sign']),
      kid: jwk.kid,
    })
const config = await client.discovery(new URL(issuer), id, undefined, proof, {
  algorithm: 'oauth2',
  execute: [client.allowInsecureRequests], // the server under test is on loopback
})
const errors = []
config[client.customFetch] = async (address, options) => {
  const response = await fetch(address, options)
  if (!response.ok) errors.push((await response.clone().json()).error)
  return response
}

const options = {}
if (bound) options.DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair('ES256'))
// The library repeats a request by itself when the server asks for a nonce.
const tokens = []
for (let count = 0; count < 2; count += 1) {
  tokens.push(await client.clientCredentialsGrant(config, { scope }, options))
}

const token = tokens[0].access_token
const before = await client.tokenIntrospection(config, token)
await client.tokenRevocation(config, token)
const after = await client.tokenIntrospection(config, token)
const thumbprint = await options.DPoP?.calculateThumbprint()
console.log(JSON.stringify({ tokens, before, after, errors, thumbprint }))
