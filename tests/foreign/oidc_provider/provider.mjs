// node-oidc-provider as the identity provider of the console. Reads its settings as JSON from
// standard input: port, clients, and accounts by id with their claims. Prints "ready".
// PUT /next-log-in names who logs in next: {"account": ..., "acr": ..., "amr": [...]}.
import { readFileSync } from 'node:fs';

import { Provider } from 'oidc-provider';

const { port, clients, accounts } = JSON.parse(readFileSync(0, 'utf8'));
let nextLogIn = { account: Object.keys(accounts)[0] };

const provider = new Provider(`http://localhost:${port}`, {
  clients,
  acrValues: ['urn:example:strong', 'urn:example:weak'],
  scopes: ['openid', 'profile', 'groups'],
  claims: { openid: ['sub', 'acr', 'amr', 'auth_time'], profile: ['preferred_username'], groups: ['groups'] },
  features: { devInteractions: { enabled: false } },
  pkce: { required: () => true },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  clientAuthMethods: ['client_secret_basic', 'private_key_jwt'],
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...accounts[id] }) }),
});

async function grantEverything(interaction) {
  const { params, prompt, session, grantId } = interaction;
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (prompt.details.missingOIDCScope) {
    grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
  }
  if (prompt.details.missingOIDCClaims) {
    grant.addOIDCClaims(prompt.details.missingOIDCClaims);
  }
  return { consent: { grantId: await grant.save() } };
}

provider.use(async (context, next) => {
  if (context.path === '/next-log-in') {
    const chunks = [];
    for await (const chunk of context.req) {
      chunks.push(chunk);
    }
    nextLogIn = JSON.parse(Buffer.concat(chunks).toString());
    context.status = 204;
  } else if (context.path.startsWith('/interaction/')) {
    const interaction = await provider.interactionDetails(context.req, context.res);
    const { account, acr, amr, error } = nextLogIn;
    const result =
      interaction.prompt.name === 'login'
        ? error
          ? { error, error_description: 'as the test says' }
          : { login: { accountId: account, acr, amr } }
        : await grantEverything(interaction);
    context.respond = false;
    await provider.interactionFinished(context.req, context.res, result, {
      mergeWithLastSubmission: false,
    });
  } else {
    await next();
  }
});
provider.listen(port, '127.0.0.1', () => console.log('ready'));
