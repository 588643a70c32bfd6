// Calls a protected resource through a client-credentials provider of the MCP SDK: values come as JSON
// on stdin, and what was seen is printed.
import {
  ClientCredentialsProvider,
  PrivateKeyJwtProvider,
} from '@modelcontextprotocol/sdk/client/auth-extensions.js'
import { auth } from '@modelcontextprotocol/sdk/client/auth.js'

const { issuer, id, secret, jwk, scope, resource } = JSON.parse(
  await new Response(process.stdin).text(),
)
const usual = { clientId: id, scope, expectedIssuer: issuer }
const provider = secret
  ? new ClientCredentialsProvider({ ...usual, clientSecret: secret })
  : new PrivateKeyJwtProvider({ ...usual, privateKey: jwk, algorithm: 'ES256' })

let result
try {
  result = await auth(provider, { serverUrl: resource })
} catch (error) {
  result = error.name
}
const token = provider.tokens()
const response = await fetch(resource, {
  headers: { authorization: `Bearer ${token?.access_token}` },
})
console.log(JSON.stringify({ result, token, status: response.status }))
